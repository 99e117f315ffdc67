"""The parts of a MIME body, as spans: which octets are whose header and whose body (RFC 2045, 2046).

Owns: Content-Type values, the split of multiparts, transfer decoding of one part. Does not know what parts are for.
Invariant: no recursion, no copy of bodies, and hard caps on parts and depth (input G6): what goes beyond stays one opaque
leaf and `Parts.complete` is false.
"""

import binascii
import re
from dataclasses import dataclass, field, replace

MAX_PARTS = 200
MAX_DEPTH = 20

_TYPE = re.compile(rb"[ \t\r\n]*([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)/([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)")
_PARAMETER = re.compile(
    rb";[ \t\r\n]*+([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++)[ \t\r\n]*+=[ \t\r\n]*+"
    rb'(?:"((?:[^"\\]|\\.)*+)"|([^ \t\r\n;"]++))',
    re.DOTALL,
)
_UNQUOTE = re.compile(rb"\\(.)", re.DOTALL)
_MAX_PARAMETERS = 50


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type in lower case with its parameters (names in lower case, values as given)."""

    kind: bytes = b"text"
    subtype: bytes = b"plain"
    parameters: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def name(self) -> bytes:
        """`type/subtype`."""
        return self.kind + b"/" + self.subtype


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its header section (octets, unchecked) and where its body lies; a container has its children after it."""

    header: bytes
    start: int  # of the body in the whole body
    end: int
    content_type: ContentType
    depth: int
    container: bytes  # subtype of the multipart around it; empty for the message itself
    is_multipart: bool = False  # split: the parts that follow with a greater depth are its own
    header_start: int = 0

    def field(self, name: bytes) -> bytes | None:
        """Give the unfolded value of the part's first field of a name in lower case."""
        return find_field(self.header, name)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts in the order of the octets, the message itself first. `complete` false: a cap cut the split short."""

    parts: list[Part]
    complete: bool


def find_field(header: bytes, name: bytes) -> bytes | None:
    """Give the unfolded value of the first field of a name (lower case) in an unchecked header section."""
    match = re.search(rb"(?:\A|\n)%s[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)" % re.escape(name), header, re.IGNORECASE)
    return match[1].replace(b"\r\n", b"").strip(b" \t") if match else None


def parse_content_type(value: bytes | None) -> ContentType:
    """Read a Content-Type value, tolerant: what cannot be read is text/plain (RFC 2045 s5.2)."""
    match = _TYPE.match(value or b"")
    if value is None or match is None:
        return ContentType()
    parameters: dict[bytes, bytes] = {}
    for found in _PARAMETER.finditer(value, match.end()):
        name, quoted, plain = found.groups()
        if len(parameters) < _MAX_PARAMETERS:
            parameters.setdefault(name.lower(), plain if quoted is None else _UNQUOTE.sub(rb"\1", quoted))
    return ContentType(match[1].lower(), match[2].lower(), parameters)


def split_parts(header: bytes, body: bytes, *, max_parts: int = MAX_PARTS, max_depth: int = MAX_DEPTH) -> Parts:
    """Split a message's body into its parts. Linear in the size times the depth allowed; never fails."""
    top = Part(header, 0, len(body), parse_content_type(find_field(header, b"content-type")), 0, b"")
    done: list[Part] = []
    waiting = [top]
    known, complete = 1, True
    while waiting:
        part = waiting.pop()
        boundary = part.content_type.parameters.get(b"boundary", b"").rstrip(b" \t")
        if part.content_type.kind != b"multipart" or not boundary:
            done.append(part)
            continue
        if part.depth >= max_depth:
            complete = False
            done.append(part)
            continue
        spans = _spans(body, part.start, part.end, boundary, max_parts - known + 1)
        if not spans or known + len(spans) > max_parts:
            complete = complete and not spans
            done.append(part)
            continue
        known += len(spans)
        done.append(replace(part, is_multipart=True))
        waiting += [_child(body, start, end, part) for start, end in reversed(spans)]
    return Parts(done, complete)


def _spans(body: bytes, start: int, end: int, boundary: bytes, limit: int) -> list[tuple[int, int]]:
    """Find what lies between the delimiter lines, at most `limit` pieces; the CRLF before a delimiter is the delimiter's."""
    delimiter = re.compile(rb"(?:(?<=\r\n)|\A)--%s(--)?[ \t]*+(?=\r\n|\Z)" % re.escape(boundary))
    spans: list[tuple[int, int]] = []
    opened = -1
    for match in delimiter.finditer(body, start, end):
        if opened >= 0:
            spans.append((opened, max(match.start() - 2, opened)))
            if len(spans) >= limit:
                return spans
        if match[1]:
            return spans
        opened = match.end() + 2
    if 0 <= opened <= end:
        spans.append((opened, end))
    return spans


def _child(body: bytes, start: int, end: int, parent: Part) -> Part:
    if body.startswith(b"\r\n", start, end):
        header, body_start = b"", start + 2
    else:
        found = body.find(b"\r\n\r\n", start, end)
        body_start = end if found < 0 else found + 4
        header = body[start : end if found < 0 else found + 2]
    value = find_field(header, b"content-type")
    if value is None and parent.content_type.subtype == b"digest":
        content_type = ContentType(b"message", b"rfc822")
    else:
        content_type = parse_content_type(value)
    return Part(header, body_start, end, content_type, parent.depth + 1, parent.content_type.subtype, header_start=start)


def decode_transfer(octets: bytes, encoding: bytes | None) -> bytes:
    """Undo a Content-Transfer-Encoding, tolerant: what does not decode stays as it is."""
    name = (encoding or b"").strip(b" \t").lower()
    if name == b"base64":
        try:
            return binascii.a2b_base64(octets)
        except binascii.Error:
            return octets
    return binascii.a2b_qp(octets) if name == b"quoted-printable" else octets
