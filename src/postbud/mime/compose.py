"""Composing content: what a program says in fields of its own becomes a message that every reader shows as it was meant.

Owns the layout (RFC 2046: text and HTML are alternatives, inline files are related to the HTML, attachments are mixed with
both), the encoding of header text (RFC 2047) and of file names (RFC 2231), and the choice of a transfer encoding (RFC 2045 s6).
Does not know who may say what, nor Date and Message-ID: those are `submission.fixups`'s. Everything comes in checked for
characters that a header cannot hold; nothing here trusts that twice, see `header_text`.
Invariant: the output is ASCII, but for mailboxes that need SMTPUTF8; every line ends in CRLF and has at most 998 octets.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from postbud.mime.disposition import disposition_field
from postbud.mime.folding import fold_address_list, header_text
from postbud.model.mailbox import Mailbox

MAX_LINE_OCTETS = 998  # RFC 5322 s2.1.1
_BASE64_LINE = 76  # RFC 2045 s6.8
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_TYPE = re.compile(
    r"(?P<type>[A-Za-z0-9!#$&^_.+\-]{1,64})/(?P<subtype>[A-Za-z0-9!#$&^_.+\-]{1,64})"
    r"(?P<parameters>(?:[ ]*;[ ]*[A-Za-z0-9!#$&^_.+\-]{1,64}=(?:[A-Za-z0-9!#$&^_.+\-:/]{1,128}|\"[ !#-\[\]-~]{0,128}\"))*)"
)


@dataclass(frozen=True, slots=True)
class Person:
    """A mailbox with the name that stands beside it; the empty name is none."""

    mailbox: Mailbox
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file. With a content id it is shown inside the HTML part (`cid:…`), else listed beside the text."""

    content: bytes
    content_type: str = "application/octet-stream"
    filename: str = ""
    content_id: str = ""  # without angle brackets


@dataclass(frozen=True, slots=True)
class Letter:
    """What a program says of a message. `headers` are further fields, in their order, unstructured."""

    sender: Person
    to: Sequence[Person] = ()
    cc: Sequence[Person] = ()
    reply_to: Sequence[Person] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    attachments: Sequence[Attachment] = ()


class ComposeError(ValueError):
    """A letter that cannot be said in a message; `field` names the part at fault."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


@dataclass(frozen=True, slots=True)
class _Part:
    """A body with the fields that say what it is."""

    fields: bytes
    body: bytes


def compose(letter: Letter, boundary_token: str) -> tuple[bytes, bytes]:
    """Give header section and body. `boundary_token` is random, of letters and digits: no body can know it beforehand.

    Raises:
        ComposeError: A content type that is none, or content that its type forbids to encode.
    """
    part = _body(letter, boundary_token)
    fields = [fold_address_list("From", [letter.sender])]
    for name, people in (("To", letter.to), ("Cc", letter.cc), ("Reply-To", letter.reply_to)):
        if people:
            fields.append(fold_address_list(name, people))
    fields.append(header_text("Subject", letter.subject))
    fields.extend(header_text(name, value) for name, value in letter.headers)
    return b"".join([*fields, b"MIME-Version: 1.0\r\n", part.fields]), part.body


def content_type_of(text: str) -> tuple[str, str]:
    """Give a media type as it is written out (type in lower case), and `type/subtype` alone in lower case.

    Raises:
        ValueError: It is no media type, or one that is no single file (multipart).
    """
    match = _TYPE.fullmatch(text.strip(" "))
    if match is None:
        raise ValueError("is no media type, such as application/pdf")
    name = f"{match['type']}/{match['subtype']}".lower()
    if name.startswith("multipart/"):
        raise ValueError("a multipart is no file")
    parameters = [part.strip(" ") for part in match["parameters"].split(";")[1:]]
    return "; ".join([name, *parameters]), name


def _body(letter: Letter, token: str) -> _Part:
    inline = [(place, one) for place, one in enumerate(letter.attachments) if one.content_id]
    beside = [(place, one) for place, one in enumerate(letter.attachments) if not one.content_id]
    if letter.html is None:
        inline, beside = [], list(enumerate(letter.attachments))
    parts: list[_Part] = []
    if letter.text is not None or letter.html is None:
        parts.append(_text("text/plain", letter.text or ""))
    if letter.html is not None:
        html = _text("text/html", letter.html)
        if inline:
            files = [_file(place, one, shown=True) for place, one in inline]
            html = _multipart('related; type="text/html"', f"{token}r", [html, *files])
        parts.append(html)
    whole = parts[0] if len(parts) == 1 else _multipart("alternative", f"{token}a", parts)
    if beside:
        whole = _multipart("mixed", f"{token}m", [whole, *(_file(place, one, shown=False) for place, one in beside)])
    return whole


def _multipart(kind: str, boundary: str, parts: Sequence[_Part]) -> _Part:
    subtype, _, parameters = kind.partition("; ")
    more = f"; {parameters}" if parameters else ""
    fields = f'Content-Type: multipart/{subtype}{more};\r\n boundary="=_{boundary}"\r\n'
    delimiter = f"--=_{boundary}".encode("ascii")
    pieces: list[bytes] = []
    for part in parts:
        pieces += [delimiter, b"\r\n", part.fields, b"\r\n", part.body, b"\r\n"]  # this line end is the delimiter's
    pieces += [delimiter, b"--\r\n"]
    return _Part(fields.encode("ascii"), b"".join(pieces))


def _text(content_type: str, text: str) -> _Part:
    plain = _with_crlf(text)
    charset, octets = ("us-ascii", plain.encode("ascii")) if plain.isascii() else ("utf-8", plain.encode("utf-8"))
    name, body = _encode_text(octets)
    fields = f"Content-Type: {content_type}; charset={charset}\r\nContent-Transfer-Encoding: {name}\r\n"
    return _Part(fields.encode("ascii"), body)


def _with_crlf(text: str) -> str:
    """Give text whose lines all end in CRLF, the last one too."""
    if "\r" in text:
        text = _LINE_ENDS.sub("\n", text)
    if not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", "\r\n")


def _encode_text(octets: bytes) -> tuple[str, bytes]:
    """Choose 7bit where it fits, else quoted-printable (which people can read) unless it doubles the size, else base64."""
    if octets.isascii() and max(map(len, octets.split(b"\r\n"))) <= MAX_LINE_OCTETS:
        return "7bit", octets
    quoted = binascii.b2a_qp(octets)
    if len(quoted) <= 2 * len(octets):
        return "quoted-printable", quoted
    return "base64", in_base64(octets)


def in_base64(octets: bytes) -> bytes:
    """Give octets in base64, in lines of 76 characters that end in CRLF."""
    encoded = binascii.b2a_base64(octets, newline=False)
    lines = [encoded[start : start + _BASE64_LINE] for start in range(0, len(encoded), _BASE64_LINE)]
    return b"\r\n".join([*lines, b""])


def _file(place: int, file: Attachment, *, shown: bool) -> _Part:
    try:
        written, name = content_type_of(file.content_type)
    except ValueError as error:
        raise ComposeError(f"attachments[{place}].content_type", str(error)) from error
    encoding, body = "base64", b""
    if name.startswith("message/"):  # RFC 2046 s5.2: may not be encoded
        encoding, body = "7bit", _message_body(place, file.content)
    else:
        body = in_base64(file.content)
    fields = [f"Content-Type: {written}\r\n", f"Content-Transfer-Encoding: {encoding}\r\n"]
    if file.content_id:
        fields.append(f"Content-ID: <{file.content_id}>\r\n")
    fields.append(disposition_field("inline" if shown else "attachment", file.filename))
    return _Part("".join(fields).encode("ascii"), body)


def _message_body(place: int, content: bytes) -> bytes:
    body = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    fits = body.isascii() and b"\0" not in body and body.count(b"\r") == body.count(b"\n")
    if not fits or max(map(len, body.split(b"\r\n"))) > MAX_LINE_OCTETS:
        raise ComposeError(
            f"attachments[{place}].content",
            "an attached message is sent as it is: ASCII, in lines of at most 998; else give application/octet-stream",
        )
    return body
