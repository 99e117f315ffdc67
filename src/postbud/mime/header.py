"""The header section, octet for octet: where it ends, its fields, and the budgets that keep hostile ones cheap.

Owns: splitting content at the first empty line, splitting a header section into fields, the refusal of what is no header
section (RFC 5322 s2.1.1, s2.2, s3.6.8). Fields keep their octets exactly (P4); nothing is decoded here.
Does not know: what a field means, addresses (`address`), encoded words (`words`).
Invariant: joining the raw octets of all fields gives the section back; time is linear in its length.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

MAX_LINE_OCTETS = 998  # RFC 5322 s2.1.1, without CRLF
MAX_SECTION_OCTETS = 256 * 1024
MAX_FIELDS = 1000

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_FIELD_NAMES = re.compile(rb"^([!-9;-~]+):", re.MULTILINE)


class MalformedHeader(ValueError):  # noqa: N818 (named for what it tells)
    """The octets are no header section; `too_big` tells a budget from a mistake (552 from 554)."""

    def __init__(self, why: str, *, too_big: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.too_big = too_big


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: its name in lower case and its octets as they came, CRLF included."""

    name: bytes
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the colon, still folded, CRLF included."""
        return self.raw[len(self.name) + 1 :]

    @property
    def value(self) -> bytes:
        """The unfolded field body without the white space around it (RFC 5322 s2.2.3)."""
        return self.raw[len(self.name) + 1 :].replace(b"\r\n", b"").strip(b" \t")


def split_content(octets: bytes | bytearray, *, final: bool = True) -> tuple[bytes, int] | None:
    """Split content at its first empty line: give the header section and where the body starts.

    The section keeps the CRLF of its last field and lacks the empty line. With `final` false the octets are a beginning, and
    None asks for more. With `final` true, content without an empty line is all header section when it ends in CRLF; None
    says that it cannot be split.
    """
    if octets[:2] == b"\r\n":
        return b"", 2
    end = octets.find(b"\r\n\r\n")
    if end >= 0:
        return bytes(octets[: end + 2]), end + 4
    if final and (not octets or octets[-2:] == b"\r\n"):
        return bytes(octets), len(octets)
    return None


def split_fields(header: bytes) -> list[bytes]:
    """Cut a header section into fields, each with its CRLF, unchecked. Linear, one pass in C."""
    pieces = _FIELD_END.split(header)
    last = pieces.pop()
    fields = [piece + b"\r\n" for piece in pieces]
    if last:
        fields.append(last)
    return fields


class HeaderSection:
    """A checked header section."""

    __slots__ = ("_index", "fields", "octets")

    def __init__(self, octets: bytes, fields: list[Field]) -> None:
        self.octets = octets
        self.fields = fields
        index: dict[bytes, list[Field]] = {}
        for field in fields:
            same = index.get(field.name)
            if same is None:
                index[field.name] = [field]
            else:
                same.append(field)
        self._index = index

    @classmethod
    def parse(cls, header: bytes) -> "HeaderSection":
        """Parse a header section without its empty line.

        Raises:
            MalformedHeader: It breaks RFC 5322's syntax (obsolete forms included: white space before a colon) or a budget.
        """
        if len(header) > MAX_SECTION_OCTETS:
            raise MalformedHeader("header section is longer than 256 KiB", too_big=True)
        _check_lines(header)
        pieces = split_fields(header)
        if len(pieces) > MAX_FIELDS:
            raise MalformedHeader("more than 1,000 header fields", too_big=True)
        names = _FIELD_NAMES.findall(header)
        if len(names) != len(pieces):
            raise MalformedHeader(_what_is_wrong(pieces))
        return cls(header, [Field(name.lower(), raw) for name, raw in zip(names, pieces, strict=True)])

    def get_all(self, name: bytes) -> list[Field]:
        """Give the fields of a name (lower case), in their order."""
        return self._index.get(name, [])

    def count(self, name: bytes) -> int:
        """Tell how many fields of a name (lower case) there are."""
        return len(self._index.get(name, ()))

    def repeated(self, names: Collection[bytes]) -> list[bytes]:
        """Give those of the names (lower case) that stand more than once."""
        if len(self._index) == len(self.fields):  # nothing does
            return []
        return [name for name in names if len(self._index.get(name, ())) > 1]

    def value(self, name: bytes) -> bytes | None:
        """Give the unfolded value of the first field of a name (lower case), None when there is none."""
        fields = self._index.get(name)
        return fields[0].value if fields else None

    def without(self, unwanted: Callable[[bytes], bool]) -> bytes:
        """Give the section's octets without the fields whose lower-case name is unwanted."""
        return b"".join([field.raw for field in self.fields if not unwanted(field.name)])


def _check_lines(header: bytes) -> None:
    ends = header.count(b"\r\n")
    if header.count(b"\r") != ends or header.count(b"\n") != ends:
        raise MalformedHeader("bare CR or LF in the header section")
    if header and not header.endswith(b"\r\n"):
        raise MalformedHeader("header section does not end in CRLF")
    if b"\0" in header:
        raise MalformedHeader("NUL in the header section")
    if b"\r\n\r\n" in header or header[:2] == b"\r\n":
        raise MalformedHeader("empty line in the header section")
    if header and max(map(len, header.split(b"\r\n"))) > MAX_LINE_OCTETS:
        raise MalformedHeader("header line longer than 998 octets")


def _what_is_wrong(pieces: list[bytes]) -> str:
    """Say why the first piece that does not begin with a name and a colon is no field."""
    bad = next(piece for piece in pieces if not _FIELD_NAMES.match(piece))
    if bad[:1] in {b" ", b"\t"}:
        return "header section starts with white space"
    if bad[:5] == b"From " and bad[5:6] != b":":
        return "mbox line in the header section"
    return "header field name is malformed" if b":" in bad else "header line without a colon"
