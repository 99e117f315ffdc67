"""What relays read: pages of directory records and of address sets, by sequence number.

Read only. Invariant: a page's `seq` is one at which everything up to it was visible (numbers are given in the order of
commits), and the sequence is read before the records, so nothing between two pages is skipped.
"""

from typing import Any

import msgspec
from django.db import connection

from postbud.console.link.publish import to_signed, to_unsigned
from postbud.model.link import PAGE_RECORDS, Gone, SetChange, SetChanges, SetPage

PAGE_HASHES = 100_000
_HASH_OCTETS = 8
_HIGHEST = (1 << 64) - 1

_SEQUENCE = "SELECT value, base FROM link_sequence WHERE id = 1"
# all accounts, these three: a relay serves every account of the installation
_EVERYTHING = "SELECT seq, kind, key, body, gone FROM link_linkrecord WHERE NOT gone ORDER BY seq LIMIT %s"
_CHANGES = "SELECT seq, kind, key, body, gone FROM link_linkrecord WHERE seq > %s ORDER BY seq LIMIT %s"
_SET_CHANGES = "SELECT seq, name, hash, present FROM link_setentry WHERE seq > %s ORDER BY seq LIMIT %s"
# one step of the index from name to name
_SET_NAMES = """
WITH RECURSIVE named(name) AS (
    SELECT min(name) FROM link_setentry
    UNION ALL
    SELECT (SELECT min(e.name) FROM link_setentry AS e WHERE e.name > named.name) FROM named WHERE named.name IS NOT NULL
)
SELECT name FROM named WHERE name IS NOT NULL
"""
_SET_PAGE = "SELECT hash FROM link_setentry WHERE name = %s AND hash >= %s AND present ORDER BY hash LIMIT %s"


class RawChange(msgspec.Struct, frozen=True):
    """A `model.link.Change` whose record is JSON already."""

    seq: int
    record: msgspec.Raw


class RawPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `model.link.DirectoryPage` whose records are JSON already."""

    seq: int
    changes: tuple[RawChange, ...] = ()
    more: bool = False
    restart: bool = False


def current() -> tuple[int, int]:
    """Give the last number of the sequence, and where this database's life began."""
    rows = _rows(_SEQUENCE, ())
    return (rows[0][0], rows[0][1]) if rows else (0, 0)


def page(since: int) -> RawPage:
    """Give what changed after `since`; 0: everything that is there."""
    value, base = current()
    if since > value or 0 < since < base:
        return RawPage(seq=0, restart=True)
    limit = PAGE_RECORDS + 1
    rows = _rows(_CHANGES, (since, limit)) if since else _rows(_EVERYTHING, (limit,))
    changes = tuple(RawChange(seq=row[0], record=_record(*row[1:])) for row in rows[:PAGE_RECORDS])
    if len(rows) > PAGE_RECORDS:
        return RawPage(seq=changes[-1].seq, changes=changes, more=True)
    return RawPage(seq=max(value, changes[-1].seq) if changes else value, changes=changes)


def set_changes(since: int) -> SetChanges:
    """Give what changed in the sets after `since`, and their names; 0: only the names, for whoever then reads whole sets."""
    value, base = current()
    if since > value or 0 < since < base:
        return SetChanges(seq=0, restart=True)
    rows = _rows(_SET_CHANGES, (since, PAGE_RECORDS + 1)) if since else []
    changes = tuple(
        SetChange(seq=seq, name=name, hash=to_unsigned(stored), present=bool(present))
        for seq, name, stored, present in rows[:PAGE_RECORDS]
    )
    names = tuple(row[0] for row in _rows(_SET_NAMES, ()))
    if len(rows) > PAGE_RECORDS:
        return SetChanges(seq=changes[-1].seq, names=names, changes=changes, more=True)
    return SetChanges(seq=max(value, changes[-1].seq) if changes else value, names=names, changes=changes)


def set_page(name: str, after: int | None) -> SetPage:
    """Give a sorted page of a set: the hashes above `after` (64 bits, unsigned; None: from the first one)."""
    value, _ = current()
    lowest = 0 if after is None else after + 1
    rows = _rows(_SET_PAGE, (name, to_signed(lowest), PAGE_HASHES + 1)) if lowest <= _HIGHEST else []
    hashes = [to_unsigned(row[0]) for row in rows[:PAGE_HASHES]]
    return SetPage(
        name=name,
        seq=value,
        hashes=b"".join(hashed.to_bytes(_HASH_OCTETS, "big") for hashed in hashes),
        next=hashes[-1] if len(rows) > PAGE_HASHES else None,
    )


def _record(kind: str, key: str, body: bytes, gone: bool) -> msgspec.Raw:  # noqa: FBT001  # a column
    return msgspec.Raw(msgspec.json.encode(Gone(what=kind, id=key)) if gone else bytes(body))


def _rows(statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
