import email
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.parts import decode_transfer
from postbud.mime.transfer import fits, to_quoted_printable

LONG = b"x" * 1200
MIXED = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"


def part(body: bytes, fields: bytes = b"") -> bytes:
    return b"--b\r\n" + fields + b"\r\n" + body + b"\r\n"


def changed(header: bytes, body: bytes, *, seven_bit: bool = False) -> tuple[bytes, bytes]:
    result = to_quoted_printable(header, body, seven_bit=seven_bit)
    assert result is not None
    assert fits(result[1], seven_bit=seven_bit)
    return result


def test_content_that_fits_comes_back_as_it_is() -> None:
    assert to_quoted_printable(b"A: b\r\n", b"x\r\n") == (b"A: b\r\n", b"x\r\n")
    assert to_quoted_printable(b"A: b\r\n", b"\xc3\xa6\r\n") == (b"A: b\r\n", b"\xc3\xa6\r\n")
    assert to_quoted_printable(b"A: b\r\n", b"") == (b"A: b\r\n", b"")


@pytest.mark.row("G3")
def test_a_long_line_without_mime_becomes_quoted_printable_with_the_fields_that_say_so() -> None:
    header, body = changed(b"Subject: x\r\n", LONG + b" \r\n.\r\n")
    assert header == (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
    )
    assert decode_transfer(body, b"quoted-printable") == LONG + b" \r\n.\r\n"
    assert max(map(len, body.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(("body", "charset"), [(b"\xc3\xa6\r\n", b"utf-8"), (b"\xe6\r\n", b"unknown-8bit")])
def test_the_charset_of_undeclared_text_is_told_as_far_as_it_is_known(body: bytes, charset: bytes) -> None:
    header, encoded = changed(b"", body, seven_bit=True)
    assert b"charset=" + charset in header
    assert decode_transfer(encoded, b"quoted-printable") == body


def test_the_old_encoding_field_is_replaced_in_its_place_and_doubles_go() -> None:
    header, _ = changed(
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/html\r\nA: b\r\n"
        b"content-transfer-encoding: 8bit\r\n",
        b"\xc3\xa6\r\n",
        seven_bit=True,
    )
    assert header == (
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html\r\nA: b\r\n"
    )


@pytest.mark.row("G3", "G4")
def test_only_the_text_parts_that_need_it_change() -> None:
    body = (
        b"preamble\r\n"
        + part(b"\xc3\xa6" + LONG, b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n")
        + part(LONG)
        + part(b"short", b"Content-Type: text/plain\r\n")
        + part(b"AAAA", b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n")
        + b"--b--\r\nepilogue\r\n"
    )
    header = MIXED + b"Content-Transfer-Encoding: 8bit\r\n"
    new_header, new_body = changed(header, body, seven_bit=True)
    assert new_header == MIXED + b"Content-Transfer-Encoding: 7bit\r\n"
    before, after = (email.message_from_bytes(h + b"\r\n" + b) for h, b in ((header, body), (new_header, new_body)))
    assert [p.get_payload(decode=True) for p in before.walk()] == [p.get_payload(decode=True) for p in after.walk()]
    assert [p["Content-Transfer-Encoding"] for p in after.walk()] == [
        "7bit",
        "quoted-printable",
        "quoted-printable",
        None,
        "base64",
    ]
    assert new_body.startswith(b"preamble\r\n--b\r\n")
    assert new_body.endswith(b"--b--\r\nepilogue\r\n")


def test_long_lines_alone_leave_the_label_of_a_container() -> None:
    header = MIXED + b"Content-Transfer-Encoding: 8bit\r\n"
    assert changed(header, part(LONG) + b"--b--\r\n")[0] == header


@pytest.mark.row("G12", "G3")
@pytest.mark.parametrize("subtype", [b"signed", b"encrypted"])
def test_nothing_inside_what_is_signed_or_encrypted_changes(subtype: bytes) -> None:
    header = b"Content-Type: multipart/%s; boundary=b\r\n" % subtype
    assert to_quoted_printable(header, part(LONG) + b"--b--\r\n") is None
    inner = (
        b"--c\r\n\r\nsigned text \r\n--c\r\nContent-Type: multipart/mixed; boundary=d\r\n\r\n--d\r\n\r\nx \r\n--d--\r\n--c--"
    )
    sealed = part(inner, b"Content-Type: multipart/%s; boundary=c\r\n" % subtype)
    _, body = changed(MIXED, sealed + part(LONG) + b"--b--\r\n")
    assert inner in body
    assert to_quoted_printable(MIXED, sealed.replace(b"signed text", b"signed \xc3\xa6") + b"--b--\r\n", seven_bit=True) is None


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: application/pkcs7-mime\r\n",
        b"Content-Type: application/octet-stream\r\n",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
        b"Content-Type: text/plain; name=\xc3\xa6\r\n",
    ],
)
def test_what_may_not_or_cannot_change_is_refused(fields: bytes) -> None:
    assert to_quoted_printable(MIXED, part(b"\xc3\xa6" + LONG, fields) + b"--b--\r\n", seven_bit=True) is None


@pytest.mark.row("G6")
def test_beyond_the_caps_the_body_is_refused_in_little_time() -> None:
    started = time.perf_counter()
    header = b"Content-Type: multipart/mixed; boundary=0\r\n"
    deep = b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(1200))
    assert to_quoted_printable(header, deep + LONG + b"\r\n") is None
    assert to_quoted_printable(header, b"--0\r\n\r\nx\r\n" * 1_000_000 + LONG) is None
    assert time.perf_counter() - started < 10


TEXTS = (
    st.lists(st.text("abæ =.\t-", max_size=30) | st.just("long " * 250), min_size=1, max_size=5)
    .map("\r\n".join)
    .map(str.encode)
)


@given(TEXTS, st.booleans())
def test_decoding_gives_the_text_back(text: bytes, seven_bit: bool) -> None:
    header, body = changed(b"", text, seven_bit=seven_bit)
    assert decode_transfer(body, b"quoted-printable" if header else None) == text


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_in_a_multipart_each_part_decodes_to_what_it_was(texts: list[bytes]) -> None:
    header = MIXED.replace(b"boundary=b", b"boundary=q7")
    body = b"".join(b"--q7\r\n\r\n" + text + b"\r\n" for text in texts) + b"--q7--\r\n"
    new_header, new_body = changed(header, body, seven_bit=True)
    before, after = (email.message_from_bytes(h + b"\r\n" + b) for h, b in ((header, body), (new_header, new_body)))
    assert [p.get_payload(decode=True) for p in before.walk()] == [p.get_payload(decode=True) for p in after.walk()]


def test_a_delimiter_that_a_soft_line_end_would_make_of_text_is_refused() -> None:
    assert to_quoted_printable(MIXED, part(LONG + b"--b") + b"--b--\r\n") is None
    changed(MIXED, part(LONG + b"-b") + b"--b--\r\n")
