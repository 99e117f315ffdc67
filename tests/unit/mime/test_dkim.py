import base64
import re
from functools import cache

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shared import shared_data

from postbud.mime.body import scan_body
from postbud.mime.dkim import KeyProblem, SigningKey, canonical_header, load_key, public_record, sign, sign_all
from postbud.mime.verify import MAX_SIGNATURES, LookupTrouble, Result, Verification, verify

HEADER = (
    b"Received: from a ([192.0.2.1])\r\n by relay.example with ESMTP; Tue, 24 Nov 2026 21:07:17 +0000\r\n"
    b"From: Anna  Berg <anna@acme.example>\r\nTo: b@b.example\r\nSubject: Hello\r\n\t there \r\n"
    b"Date: Tue, 24 Nov 2026 21:07:17 +0000\r\nMessage-ID: <m1@acme.example>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain\r\nList-Unsubscribe: <https://acme.example/u>\r\nReferences: <m0@acme.example>\r\n"
)
BODY = b"Hello  there \r\n\tAnna\r\n\r\n\r\n"
SIGNED_AT = 1_700_000_000
EXPIRES = 4_000_000_000  # dkimpy looks at the real clock
KINDS = ["rsa", "ed25519"]


def pem(private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def key(kind: str) -> SigningKey:
    private = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return load_key(pem(private))


def records(name: str) -> str | None:
    kind = name.partition(".")[0]
    return public_record(key(kind)) if kind in KINDS and name == f"{kind}._domainkey.acme.example" else None


def signed(kind: str = "rsa", header: bytes = HEADER, body: bytes = BODY) -> bytes:
    return header_of(kind, header, body) + header


def header_of(kind: str, header: bytes = HEADER, body: bytes = BODY) -> bytes:
    return sign(
        header,
        scan_body(body).sha256_relaxed,
        domain="acme.example",
        selector=kind,
        key=key(kind),
        at=SIGNED_AT,
        expires=EXPIRES,
    )


def result(header: bytes, body: bytes = BODY, at: int | None = SIGNED_AT) -> Verification:
    return verify(header, body, records, at=at)[0]


def oracle(header: bytes, body: bytes = BODY) -> bool:
    def dns(name: bytes, timeout: int = 5) -> bytes | None:
        record = records(name.decode().rstrip("."))
        return record.encode() if record else None

    try:
        return bool(dkimpy.DKIM(header + b"\r\n" + body).verify(dnsfunc=dns))
    except dkimpy.ValidationError:
        return False


# signing


@pytest.mark.parametrize("kind", KINDS)
def test_our_signature_verifies_here_and_with_dkimpy(kind: str) -> None:
    assert result(signed(kind)) == Verification("acme.example", kind, Result.PASS)
    assert oracle(signed(kind))


def test_both_signatures_of_a_message_come_as_one_piece_in_their_order() -> None:
    fields = sign_all(
        HEADER,
        scan_body(BODY).sha256_relaxed,
        domain="acme.example",
        keys=[(kind, key(kind)) for kind in KINDS],
        at=SIGNED_AT,
        expires=EXPIRES,
    )
    assert [(v.selector, v.result) for v in verify(fields + HEADER, BODY, records)] == [(kind, Result.PASS) for kind in KINDS]
    assert max(map(len, fields.split(b"\r\n"))) <= 78
    assert fields.endswith(b"\r\n")
    assert b"l=" not in re.sub(rb"(?s)\bb=.*?\r\n(?!\t)", b"", fields).replace(b"bh=", b"")


def lines(text: str) -> bytes:
    """A body as SMTP brings it: every line ends in CRLF."""
    body = text.encode().replace(b"\r", b"").replace(b"\n", b"\r\n")
    return body if body.endswith(b"\r\n") or not body else body + b"\r\n"


FIELD = st.tuples(
    st.sampled_from([b"From", b"to", b"SUBJECT", b"List-Id", b"X-Other", b"References"]),
    st.lists(st.text(" \tab:;=æ\x0b", max_size=12).map(str.encode), min_size=1, max_size=3),
).map(lambda pair: pair[0] + b":" + b"\r\n ".join(pair[1]) + b"\r\n")


@settings(max_examples=60)
@given(st.lists(FIELD, max_size=6), st.text(" \t\r\nab.æ", max_size=40), st.sampled_from(KINDS))
def test_any_header_and_body_verify_after_signing(fields: list[bytes], text: str, kind: str) -> None:
    header = b"From: anna@acme.example\r\n" + b"".join(fields)
    body = lines(text)
    assert result(signed(kind, header, body), body).result is Result.PASS
    if b"\x0b" not in header:  # dkimpy takes a vertical tab for white space
        assert oracle(signed(kind, header, body), body)


@settings(max_examples=40)
@given(
    st.lists(FIELD, max_size=4),
    st.text(" \t\r\nab.", max_size=40),
    st.sampled_from([b"simple", b"relaxed"]),
    st.sampled_from([b"simple", b"relaxed"]),
    st.booleans(),
)
def test_dkimpys_signatures_verify_here(
    fields: list[bytes], text: str, header_form: bytes, body_form: bytes, length: bool
) -> None:
    header = b"From: anna@acme.example\r\n" + b"".join(field.replace(b"\x0b", b"") for field in fields)
    body = lines(text)
    own = dkimpy.DKIM(header + b"\r\n" + body).sign(
        b"rsa", b"acme.example", pem(key("rsa").private), canonicalize=(header_form, body_form), length=length
    )
    assert result(own + header, body, at=None) == Verification("acme.example", "rsa", Result.PASS)


@pytest.mark.row("G11")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"", BODY + b"more\r\n"),
        (b"", BODY.replace(b"Anna", b"Eve")),
        (b"From: eve@evil.example\r\n", BODY),
        (b"Subject: Win\r\n", BODY),
        (b"To: c@c.example\r\n", BODY),
        (b"Cc: c@c.example\r\n", BODY),
        (b"Date: Wed, 25 Nov 2026 21:07:17 +0000\r\n", BODY),
        (b"Reply-To: eve@evil.example\r\n", BODY),
        (b"Message-ID: <x@evil.example>\r\n", BODY),
        (b"MIME-Version: 1.0\r\n", BODY),
        (b"Content-Type: text/html\r\n", BODY),
        (b"Content-Transfer-Encoding: base64\r\n", BODY),
        (b"List-Unsubscribe: <https://evil.example>\r\n", BODY),
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", BODY),
        (b"List-Id: <evil.example>\r\n", BODY),
    ],
)
def test_a_replay_with_something_added_fails(kind: str, header: bytes, body: bytes) -> None:
    whole = signed(kind)
    assert result(whole + header, body).result is Result.FAIL
    assert result(header + whole, body).result is Result.FAIL
    assert not oracle(header + whole, body)


@pytest.mark.row("G11")
def test_a_signature_ends() -> None:
    assert result(signed(), at=EXPIRES).result is Result.PASS
    assert result(signed(), at=EXPIRES + 1).why == "signature has expired"


def test_fields_that_are_not_signed_may_change_on_the_way() -> None:
    assert result(b"X-Added: 1\r\n" + signed().replace(b"192.0.2.1", b"192.0.2.2")).result is Result.PASS
    assert canonical_header(b"X-Other: 1\r\nreceived: x\r\n").octets == b""


def test_a_weak_rsa_key_signs_and_says_so_and_a_weaker_one_is_refused() -> None:
    weak = load_key(pem(rsa.generate_private_key(65537, 1024)))
    assert weak.weak
    assert not key("rsa").weak
    assert not key("ed25519").weak
    with pytest.raises(KeyProblem, match="511 bits"):
        load_key(pem(small_key()))


def small_key() -> rsa.RSAPrivateKey:
    """RSA of 511 bits, from two known primes: no library makes one any more."""
    p, q, e = 2**256 - 189, 2**255 - 19, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


def test_what_is_no_signing_key_is_refused() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    for octets in (b"", b"nonsense", encrypted, pem(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(KeyProblem) as caught:
            load_key(octets)
        assert caught.value.why


# verifying


@pytest.mark.parametrize(
    ("old", "new", "outcome", "why"),
    [
        (b"v=1", b"v=2", Result.PERMERROR, "unknown version"),
        (b"a=rsa-sha256", b"a=rsa-sha1", Result.PERMERROR, "algorithm rsa-sha1 is not acceptable"),  # RFC 8301
        (b"a=rsa-sha256", b"a=ed25519-sha256", Result.PERMERROR, "key is of another algorithm"),
        (b"c=relaxed/relaxed", b"c=loose", Result.PERMERROR, "unknown canonicalization"),
        (b"c=relaxed/relaxed", b"c=relaxed", Result.FAIL, "body hash does not match"),
        (b"c=relaxed/relaxed", b"c=simple/relaxed", Result.FAIL, "signature does not match"),
        (b"d=acme.example", b"d=b@d.example", Result.PERMERROR, "d= or s= is no domain name"),
        (b"s=rsa", b"s=", Result.PERMERROR, "d= or s= is no domain name"),
        (b"s=rsa", b"s=gone", Result.PERMERROR, "no key record"),
        (b"s=rsa", b"s=rsa; q=http", Result.PERMERROR, "unknown query method"),
        (b"s=rsa", b"s=rsa; i=@evil.example", Result.PERMERROR, "i= is not within d="),
        (b"s=rsa", b"s=rsa; i=@notacme.example", Result.PERMERROR, "i= is not within d="),
        (b"s=rsa", b"s=rsa; i=a@sub.acme.example", Result.FAIL, "signature does not match"),
        (b"s=rsa", b"s=rsa; s=x", Result.PERMERROR, "tag list is malformed"),
        (b"s=rsa", b"s=rsa; junk", Result.PERMERROR, "tag list is malformed"),
        (b"s=rsa", b"s=rsa; =junk", Result.PERMERROR, "tag list is malformed"),
        (b"s=rsa", b"s=rsa;;", Result.FAIL, "signature does not match"),
        (b"s=rsa", b"s=rsa; l=9999", Result.FAIL, "body is shorter than l="),
        (b"s=rsa", b"s=rsa; l=-1", Result.PERMERROR, "l= is no number"),
        (b"t=1700000000", b"t=x", Result.PERMERROR, "t= is no number"),
        (b"t=1700000000", b"t=4100000000", Result.PERMERROR, "x= is not after t="),
        (b"t=1700000000", b"t=1700009999", Result.NEUTRAL, "signature is from the future"),
        (b"h=from:from:", b"h=x:x:", Result.PERMERROR, "From is not signed"),
        (b"bh=", b"bh=!", Result.PERMERROR, "bh= is no base64"),
        (b"\tb=", b"\tb=!", Result.PERMERROR, "b= is no base64"),
        (b"\tb=", b"\tx-b=", Result.PERMERROR, "tag b= is missing"),
    ],
)
def test_a_broken_signature_has_its_reason(old: bytes, new: bytes, outcome: Result, why: str) -> None:
    whole = signed()
    assert old in whole
    found = result(whole.replace(old, new, 1))
    assert (found.result, found.why) == (outcome, why)


P = public_record(load_key(pem(rsa.generate_private_key(65537, 1024)))).partition("p=")[2]


@pytest.mark.parametrize(
    ("record", "outcome", "why"),
    [
        (None, Result.PERMERROR, "no key record"),
        ("v=DKIM2; p=" + P, Result.PERMERROR, "key record is of another version"),
        ("k=ed25519; p=" + P, Result.PERMERROR, "key is of another algorithm"),
        ("h=sha1; p=" + P, Result.PERMERROR, "key record forbids SHA-256"),
        ("s=tlsrpt; p=" + P, Result.PERMERROR, "key is not for mail"),
        ("p=", Result.PERMERROR, "key is revoked"),
        ("k=rsa", Result.PERMERROR, "key is revoked"),
        ("p=!!", Result.PERMERROR, "key is no base64"),
        ("p=AAAA", Result.PERMERROR, "key is malformed"),
        ("nonsense", Result.PERMERROR, "tag list is malformed"),
        ("s=*:email; h=sha256:sha1; t=s; p=" + P, Result.FAIL, "signature does not match"),
    ],
)
def test_a_key_record_that_does_not_fit_has_its_reason(record: str | None, outcome: Result, why: str) -> None:
    found = verify(signed(), BODY, lambda _: record)[0]
    assert (found.result, found.why) == (outcome, why)


def test_a_key_of_another_kind_or_size_is_refused() -> None:
    elliptic = (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    short = small_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for octets, why in ((elliptic, "key is of another algorithm"), (short, "RSA key of 511 bits")):
        assert verify(signed(), BODY, lambda _, p=octets: f"p={base64.b64encode(p).decode()}")[0].why == why
    assert verify(signed("ed25519"), BODY, lambda _: "k=ed25519; p=AAAA")[0].why == "key is malformed"


def test_the_pkcs1_form_of_a_key_is_read_too() -> None:
    public = key("rsa").private.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    assert verify(signed(), BODY, lambda _: f"p={base64.b64encode(public).decode()}")[0].result is Result.PASS


def test_flags_of_the_key_record_count() -> None:
    record = public_record(key("rsa"))
    assert verify(signed(), BODY, lambda _: f"{record}; t=y")[0] == Verification(
        "acme.example", "rsa", Result.PASS, testing=True
    )
    sub = signed().replace(b"s=rsa", b"s=rsa; i=a@sub.acme.example")
    assert verify(sub, BODY, lambda _: f"{record}; t=s:y")[0].why == "key record forbids subdomains"


def test_a_look_up_that_cannot_answer_is_a_temperror() -> None:
    def lookup(_: str) -> str | None:
        raise LookupTrouble

    assert verify(signed(), BODY, lookup)[0].result is Result.TEMPERROR


def test_a_body_length_is_honoured_and_flagged() -> None:
    own = dkimpy.DKIM(HEADER + b"\r\n" + BODY).sign(b"rsa", b"acme.example", pem(key("rsa").private), length=True)
    assert result(own + HEADER, at=None) == Verification("acme.example", "rsa", Result.PASS)
    assert result(own + HEADER, BODY + b"appended\r\n", at=None).partial


def test_no_signature_gives_no_result_and_too_many_are_cut() -> None:
    assert verify(HEADER, BODY, records) == []
    assert len(verify(header_of("ed25519") * 20 + HEADER, BODY, records)) == MAX_SIGNATURES


def test_a_broken_header_section_is_a_permerror() -> None:
    assert result(b"no colon\r\n").result is Result.PERMERROR


@given(
    st.lists(
        st.sampled_from(
            [
                b"v=1;",
                b"a=rsa-sha256;",
                b"b=",
                b"AAAA",
                b";",
                b"bh=",
                b"d=acme.example;",
                b"h=from:to;",
                b"s=rsa;",
                b"\r\n ",
                b"=",
                b"c=simple;",
                b"l=1;",
                b"x=2;",
            ]
        )
        | st.binary(max_size=5),
        max_size=20,
    )
)
def test_any_signature_field_has_a_result(pieces: list[bytes]) -> None:
    field = b"DKIM-Signature: " + b"".join(pieces).replace(b"\0", b"") + b"\r\n"
    for found in verify(field + HEADER, BODY, records, at=SIGNED_AT):
        assert found.result is not Result.PASS


# what others signed


def vectors(folder: str) -> list[tuple[dict[str, str], bytes, bytes]]:
    found = []
    for path in sorted(shared_data("dkim-spf-arc").joinpath(folder).glob("*.txt")):
        octets = path.read_bytes().replace(b"\r\n", b"\n")
        keys, _, message = octets.partition(b"\n\n")
        header, _, body = message.partition(b"\n\n")
        table = dict(line.split(" ", 1) for line in keys.decode().splitlines())
        found.append((table, header.replace(b"\n", b"\r\n") + b"\r\n", body.replace(b"\n", b"\r\n")))
    return found


def test_the_signatures_of_rfc_6376_rfc_8463_and_real_providers_verify() -> None:
    results = [
        (found.domain, found.result, found.why)
        for table, header, body in vectors("stalwart-mail-auth/resources/dkim")
        for found in verify(header, body, table.get)
    ]
    assert len(results) >= 7
    assert [entry for entry in results if entry[1] is not Result.PASS] == []


def test_the_example_of_rfc_8463_verifies_in_both_algorithms_and_fails_when_changed() -> None:
    octets = (shared_data("dkim-spf-arc") / "mailauth/test/dkim/ec/fixtures/signed.eml").read_bytes()
    header, _, body = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    table = vectors("stalwart-mail-auth/resources/dkim")[0][0]
    assert [v.result for v in verify(header + b"\r\n", body, table.get)] == [Result.PASS, Result.PASS]
    assert [v.result for v in verify(header.replace(b"dinner", b"lunch") + b"\r\n", body, table.get)] == [Result.FAIL] * 2
    assert [v.result for v in verify(header + b"\r\n", body + b"x\r\n", table.get)] == [Result.FAIL] * 2
