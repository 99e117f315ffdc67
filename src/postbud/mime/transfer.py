"""Transfer encoding: makes a body fit for lines of 998 octets, or for a next hop without 8BITMIME (RFC 2045 s6, RFC 6152 s3).

Only text parts that need it are changed, to quoted-printable, and never inside what is signed or encrypted
(multipart/signed, multipart/encrypted, S/MIME) or inside another message (inputs G3, G4, G12). All other octets stay.
Must run before signing. Bounded like `parts`; answers None where it is not allowed or does not help.
"""

import binascii

from postbud.mime.header import MAX_LINE_OCTETS, split_fields
from postbud.mime.parts import Part, split_parts

_UNENCODED = frozenset({b"", b"7bit", b"8bit", b"binary"})
_SEALED = frozenset({b"signed", b"encrypted"})
_HAS_QP = b"Content-Transfer-Encoding: quoted-printable\r\n"
_HAS_7BIT = b"Content-Transfer-Encoding: 7bit\r\n"


def to_quoted_printable(header: bytes, body: bytes, *, seven_bit: bool = False) -> tuple[bytes, bytes] | None:
    """Re-encode the text parts whose lines are longer than 998 octets, or (`seven_bit`) that hold octets above 127.

    Gives the new header section and body, or None when that cannot make the body fit. A content that fits already comes
    back as it is.
    """
    if fits(body, seven_bit=seven_bit):
        return header, body
    split = split_parts(header, body)
    pieces: list[bytes] = []
    position, sealed_depth = 0, 1 << 30
    new_header = header
    for part in split.parts:
        if part.depth > sealed_depth:
            continue
        sealed_depth = part.depth if part.is_multipart and part.content_type.subtype in _SEALED else 1 << 30
        if sealed_depth == part.depth:
            continue
        changed = _change(part, body, seven_bit=seven_bit)
        if changed is None:
            continue
        part_header, part_body = changed
        if part.depth == 0:
            new_header = part_header
        else:
            pieces += [body[position : part.header_start], part_header, b"\r\n"]
        if part_body is None:
            position = part.start
        else:
            pieces.append(part_body)
            position = part.end
    new_body = b"".join([*pieces, body[position:]])
    if not fits(new_body, seven_bit=seven_bit):
        return None
    if len(split_parts(new_header, new_body).parts) != len(split.parts):  # a soft line end made a delimiter of text
        return None
    return new_header, new_body


def fits(octets: bytes, *, seven_bit: bool) -> bool:
    """Tell whether no line is longer than 998 octets and, if asked, no octet is above 127."""
    if seven_bit and not octets.isascii():
        return False
    return max(map(len, octets.split(b"\r\n"))) <= MAX_LINE_OCTETS


def _change(part: Part, body: bytes, *, seven_bit: bool) -> tuple[bytes, bytes | None] | None:
    """Give a part's new header and body (None: unchanged), or None when nothing is to be changed or may be."""
    encoding = (part.field(b"content-transfer-encoding") or b"").lower()
    if part.is_multipart:
        relabel = seven_bit and encoding in {b"8bit", b"binary"}
        return (_with_field(part.header, b"content-transfer-encoding", _HAS_7BIT), None) if relabel else None
    if part.content_type.kind != b"text" or encoding not in _UNENCODED:
        return None
    octets = body[part.start : part.end]
    if fits(octets, seven_bit=seven_bit):
        return None
    header = part.header
    if part.depth == 0:
        header = _with_mime_version(header, ascii_only=octets.isascii(), utf8=_is_utf8(octets))
    return _with_field(header, b"content-transfer-encoding", _HAS_QP), _quoted_printable(octets)


def _quoted_printable(octets: bytes) -> bytes:
    """Encode text; the CRLF is added for `b2a_qp` to learn the line ends, and taken off when the part had none."""
    if octets.endswith(b"\r\n"):
        return binascii.b2a_qp(octets)
    return binascii.b2a_qp(octets + b"\r\n")[:-2]


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _with_field(header: bytes, name: bytes, replacement: bytes) -> bytes:
    """Put a field in the place of the first of its name, or at the end; further ones of its name go."""
    fields: list[bytes] = []
    placed = False
    for raw in split_fields(header):
        if raw.partition(b":")[0].rstrip(b" \t").lower() != name:
            fields.append(raw)
        elif not placed:
            fields.append(replacement)
            placed = True
    if not placed:
        fields.append(replacement)
    return b"".join(fields)


def _with_mime_version(header: bytes, *, ascii_only: bool, utf8: bool) -> bytes:
    names = {raw.partition(b":")[0].rstrip(b" \t").lower() for raw in split_fields(header)}
    if b"mime-version" not in names:
        header += b"MIME-Version: 1.0\r\n"
    if b"content-type" not in names:
        charset = b"us-ascii" if ascii_only else b"utf-8" if utf8 else b"unknown-8bit"  # RFC 1428 s3
        header += b"Content-Type: text/plain; charset=%s\r\n" % charset
    return header
