"""Records read straight from a database file's leaf pages, for when the pages above them are gone.

Knows SQLite's file format (https://sqlite.org/fileformat2.html, s1.6 b-tree pages, s2.1 record format) as far as that takes.
What it gives may be a deleted row's remains or garbage: the caller takes only what it misses and what matches its checksum.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_INTEGER_OCTETS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MAX_PAYLOAD = 64 * 1024 * 1024


class Record(NamedTuple):
    """One record; `rowid` None: of a table without row ids, or of an index."""

    rowid: int | None
    values: tuple[Any, ...]


def records(path: Path, page_octets: int) -> Iterator[Record]:
    """Give what looks like a record, in the order of the pages."""
    with path.open("rb") as file:
        data = _Pages(file.read(), page_octets)
    for number in range(2, data.count + 1):
        yield from data.records_of(number)


class _Pages:
    def __init__(self, octets: bytes, size: int) -> None:
        self._octets = octets
        self._size = size
        self.count = len(octets) // size

    def _page(self, number: int) -> bytes:
        if not 1 <= number <= self.count:
            raise ValueError("page out of range")
        return self._octets[(number - 1) * self._size : number * self._size]

    def records_of(self, number: int) -> Iterator[Record]:
        page = self._page(number)
        kind = page[0]
        if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
            return
        start = 12 if kind == _INDEX_INTERIOR else 8
        cells = int.from_bytes(page[3:5], "big")
        for place in range(start, min(start + 2 * cells, self._size - 1), 2):
            try:
                yield self._record(page, kind, int.from_bytes(page[place : place + 2], "big"))
            except (ValueError, IndexError, struct.error):
                continue

    def _record(self, page: bytes, kind: int, at: int) -> Record:
        if kind == _INDEX_INTERIOR:
            at += 4
        size, at = _varint(page, at)
        rowid = None
        if kind == _TABLE_LEAF:
            rowid, at = _varint(page, at)
        return Record(rowid, _values(self._payload(page, at, size, table=kind == _TABLE_LEAF)))

    def _payload(self, page: bytes, at: int, size: int, *, table: bool) -> bytes:
        """Give a cell's payload, with what overflowed into pages of its own (s1.6)."""
        if size > _MAX_PAYLOAD:
            raise ValueError("payload too long")
        least = (self._size - 12) * 32 // 255 - 23
        most = self._size - 35 if table else (self._size - 12) * 64 // 255 - 23
        if size <= most:
            return page[at : at + size]
        local = least + (size - least) % (self._size - 4)
        if local > most:
            local = least
        pieces = [page[at : at + local]]
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        left = size - local
        while left > 0:
            overflow = self._page(following)
            pieces.append(overflow[4 : 4 + left])
            following = int.from_bytes(overflow[:4], "big")
            left -= self._size - 4
        return b"".join(pieces)


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        octet = octets[at + place]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at + place + 1
    value = value << 8 | octets[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _values(payload: bytes) -> tuple[Any, ...]:
    end, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        length = _INTEGER_OCTETS.get(kind, 8 if kind == 7 else max(0, (kind - 12) // 2))
        piece = payload[at : at + length]
        if len(piece) != length:
            raise ValueError("record is cut")
        at += length
        values.append(_value(kind, piece))
    return tuple(values)


def _value(kind: int, piece: bytes) -> Any:
    """Decode one value (s2.1); texts stay octets."""
    if kind in _INTEGER_OCTETS:
        return int.from_bytes(piece, "big", signed=True)
    if kind == 7:
        return struct.unpack(">d", piece)[0]
    return None if kind == 0 else {8: 0, 9: 1}.get(kind, piece)
