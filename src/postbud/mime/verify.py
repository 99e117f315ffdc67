"""DKIM verifying: every DKIM-Signature of a message, each with its result (RFC 6376 s6, RFC 8301, RFC 8463).

Sync, with the look-up and the time as arguments. The results are RFC 8601's words. Nothing here decides what a result
is worth. Budgets: ten signatures are looked at, one look-up each; keys up to 8192 bits.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postbud.mime.canonical import relaxed_body, relaxed_field, simple_body
from postbud.mime.header import Field, HeaderSection, MalformedHeader
from postbud.model.text import printable

MAX_SIGNATURES = 10
MIN_RSA_BITS = 1024  # RFC 8301 s3.2
MAX_RSA_BITS = 8192
_SKEW_SECONDS = 300

_SIGNATURE_VALUE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*", re.DOTALL)
_DOMAIN = re.compile(rb"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_WHITE = re.compile(rb"[ \t\r\n]+")


class Result(Enum):
    """RFC 8601 s2.7.1."""

    PASS = "pass"  # noqa: S105 (the standard's word)
    FAIL = "fail"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class LookupTrouble(Exception):  # noqa: N818 (named for what it tells)
    """Raised by a look-up that cannot answer now."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What one signature is worth. `partial` flags an `l=` that leaves body octets unsigned; `testing` a key with `t=y`."""

    domain: str
    selector: str
    result: Result
    why: str = ""
    partial: bool = False
    testing: bool = False


class _Verdict(Exception):  # noqa: N818 (it ends a check, also a good one)
    def __init__(self, result: Result, why: str) -> None:
        super().__init__(why)
        self.result = result
        self.why = why


def _broken(why: str) -> _Verdict:
    return _Verdict(Result.PERMERROR, why)


def verify(header: bytes, body: bytes, lookup: Callable[[str], str | None], *, at: int | None = None) -> list[Verification]:
    """Verify the DKIM signatures of a message, the first ten from the top.

    `lookup` gives the TXT record of a name, strings joined, or None when there is none; it raises `LookupTrouble` when it
    cannot tell. `at` is the time for `x=` and `t=` in seconds since 1970; None leaves them unchecked.
    """
    try:
        section = HeaderSection.parse(header)
    except MalformedHeader as error:
        return [Verification("", "", Result.PERMERROR, f"header section: {error.why}")]
    message = _Message(section, body)
    return [_Signature(field, message, lookup, at).check() for field in section.get_all(b"dkim-signature")[:MAX_SIGNATURES]]


class _Message:
    """The message; its canonical bodies are made once for all signatures."""

    def __init__(self, section: HeaderSection, body: bytes) -> None:
        self.section = section
        self._body = body
        self._canonical: dict[bytes, bytes] = {}

    def body(self, form: bytes) -> bytes:
        if form not in self._canonical:
            self._canonical[form] = relaxed_body(self._body) if form == b"relaxed" else simple_body(self._body)
        return self._canonical[form]


class _Signature:
    def __init__(self, field: Field, message: _Message, lookup: Callable[[str], str | None], at: int | None) -> None:
        self._field = field
        self._message = message
        self._lookup = lookup
        self._at = at
        self._domain = self._selector = ""
        self._partial = self._testing = False
        self._tags: dict[bytes, bytes] = {}

    def check(self) -> Verification:
        result, why = Result.PASS, ""
        try:
            self._tags = _tags(self._field.body)
            self._check_tags()
            self._check_time()
            key = self._key()
            self._check_body()
            self._check_signature(key)
        except _Verdict as verdict:
            result, why = verdict.result, verdict.why
        return Verification(self._domain, self._selector, result, why, self._partial, self._testing)

    def _check_tags(self) -> None:
        tags = self._tags
        self._domain = printable(tags.get(b"d", b""), 255).lower()
        self._selector = printable(tags.get(b"s", b""), 255)
        missing = [name.decode("ascii") for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s") if name not in tags]
        if missing:
            raise _broken(f"tag {missing[0]}= is missing")
        if tags[b"v"] != b"1":
            raise _broken("unknown version")
        if tags[b"a"] not in {b"rsa-sha256", b"ed25519-sha256"}:
            raise _broken(f"algorithm {printable(tags[b'a'], 30)} is not acceptable")
        if not _DOMAIN.fullmatch(tags[b"d"]) or not _DOMAIN.fullmatch(tags[b"s"]):
            raise _broken("d= or s= is no domain name")
        if b"dns/txt" not in tags.get(b"q", b"dns/txt"):
            raise _broken("unknown query method")
        if not (b"." + self._identity()).endswith(b"." + tags[b"d"].lower()):
            raise _broken("i= is not within d=")
        self._forms()
        if b"from" not in self._names():
            raise _broken("From is not signed")

    def _identity(self) -> bytes:
        return self._tags.get(b"i", self._tags[b"d"]).rpartition(b"@")[2].lower()

    def _forms(self) -> tuple[bytes, bytes]:
        header_form, _, body_form = self._tags.get(b"c", b"simple/simple").partition(b"/")
        forms = header_form, body_form or b"simple"
        if not {b"simple", b"relaxed"}.issuperset(forms):
            raise _broken("unknown canonicalization")
        return forms

    def _names(self) -> list[bytes]:
        return [name.strip(b" \t\r\n").lower() for name in self._tags[b"h"].split(b":")]

    def _number(self, name: bytes) -> int | None:
        if name not in self._tags:
            return None
        if not _NUMBER.fullmatch(self._tags[name]):
            raise _broken(f"{name.decode('ascii')}= is no number")
        return int(self._tags[name])

    def _check_time(self) -> None:
        signed_at, expires = self._number(b"t"), self._number(b"x")
        if signed_at is not None and expires is not None and expires <= signed_at:
            raise _broken("x= is not after t=")
        if self._at is None:
            return
        if expires is not None and expires < self._at:
            raise _Verdict(Result.FAIL, "signature has expired")
        if signed_at is not None and signed_at > self._at + _SKEW_SECONDS:
            raise _Verdict(Result.NEUTRAL, "signature is from the future")

    def _key(self) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
        try:
            record = self._lookup(f"{self._selector}._domainkey.{self._domain}")
        except LookupTrouble as error:
            raise _Verdict(Result.TEMPERROR, "key look-up failed") from error
        if record is None:
            raise _broken("no key record")
        tags = _tags(record.encode("utf-8", "replace"))
        if tags.get(b"v", b"DKIM1") != b"DKIM1":
            raise _broken("key record is of another version")
        flags = _words(tags.get(b"t", b""))
        self._testing = b"y" in flags
        if b"s" in flags and self._identity() != self._tags[b"d"].lower():
            raise _broken("key record forbids subdomains")
        if b"h" in tags and b"sha256" not in _words(tags[b"h"]):
            raise _broken("key record forbids SHA-256")
        if not {b"*", b"email"}.intersection(_words(tags.get(b"s", b"*"))):
            raise _broken("key is not for mail")
        if tags.get(b"k", b"rsa") != self._tags[b"a"].partition(b"-")[0]:
            raise _broken("key is of another algorithm")
        octets = _base64(tags.get(b"p", b""), "key")
        if not octets:
            raise _broken("key is revoked")
        return _ed25519_key(octets) if self._tags[b"a"] == b"ed25519-sha256" else _rsa_key(octets)

    def _check_body(self) -> None:
        canonical = self._message.body(self._forms()[1])
        length = self._number(b"l")
        if length is not None:
            if length > len(canonical):
                raise _Verdict(Result.FAIL, "body is shorter than l=")
            self._partial = length < len(canonical)
            canonical = canonical[:length]
        if hashlib.sha256(canonical).digest() != _base64(self._tags[b"bh"], "bh="):
            raise _Verdict(Result.FAIL, "body hash does not match")

    def _check_signature(self, key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> None:
        value = _base64(self._tags[b"b"], "b=")
        signed = self._signed_octets()
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(value, signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(value, hashlib.sha256(signed).digest())
        except InvalidSignature as error:
            raise _Verdict(Result.FAIL, "signature does not match") from error

    def _signed_octets(self) -> bytes:
        relaxed = self._forms()[0] == b"relaxed"
        left: dict[bytes, int] = {}
        pieces = []
        for name in self._names():
            fields = self._message.section.get_all(name)
            index = left.get(name, len(fields))
            if index > 0:
                left[name] = index - 1
                pieces.append(relaxed_field(name, fields[index - 1].body) if relaxed else fields[index - 1].raw)
        own = _SIGNATURE_VALUE.sub(rb"\1", self._field.body)
        last = relaxed_field(self._field.name, own) if relaxed else self._field.raw[: len(self._field.name) + 1] + own
        return b"".join([*pieces, last.removesuffix(b"\r\n")])


def _tags(octets: bytes) -> dict[bytes, bytes]:
    """Read a tag list (RFC 6376 s3.2). A tag said twice breaks it."""
    tags: dict[bytes, bytes] = {}
    for piece in octets.split(b";"):
        name, equals, value = piece.partition(b"=")
        name = name.strip(b" \t\r\n")
        if not equals and not name:
            continue
        if not equals or not name or name in tags:
            raise _broken("tag list is malformed")
        tags[name] = value.strip(b" \t\r\n")
    return tags


def _words(value: bytes) -> list[bytes]:
    return [word.strip(b" \t\r\n") for word in value.split(b":")]


def _base64(value: bytes, what: str) -> bytes:
    try:
        return base64.b64decode(_WHITE.sub(b"", value), validate=True)
    except binascii.Error as error:
        raise _broken(f"{what} is no base64") from error


def _ed25519_key(octets: bytes) -> ed25519.Ed25519PublicKey:
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(octets)
    except ValueError as error:
        raise _broken("key is malformed") from error


def _rsa_key(octets: bytes) -> rsa.RSAPublicKey:
    try:
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _broken("key is malformed") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise _broken("key is of another algorithm")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise _broken(f"RSA key of {key.key_size} bits")
    return key
