"""Tell relays of a change: records are collected in the transaction and numbered as its last statement.

`transaction.write()` runs its block in `collecting()`, which numbers and writes them before the commit. The numbers come from
the one row of `Sequence`, whose lock is then held until the commit: so they are given in the order of commits, and a reader
that saw number N will never see a smaller one appear. Outside of such a block nothing can be published.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from django.db import DEFAULT_DB_ALIAS, connection, connections

from postbud.model.link import (
    AccountRecord,
    CommandRecord,
    CredentialRecord,
    DomainRecord,
    Gone,
    PolicyRecord,
    Record,
    SecretRecord,
    ServerRecord,
    VerdictRecord,
)

KINDS: dict[type, str] = {
    AccountRecord: "account",
    ServerRecord: "server",
    CredentialRecord: "credential",
    DomainRecord: "domain",
    SecretRecord: "secret",
    PolicyRecord: "policy",
    CommandRecord: "command",
    VerdictRecord: "template",
}
_LIFE_BITS = 20  # a second of wall time is a million numbers, so a later life always begins beyond an earlier one
_ATTRIBUTE = "postbud_published"
_MIDDLE = 1 << 63

_FIRST_ROW = "INSERT INTO link_sequence (id, value, base) VALUES (1, 0, 0) ON CONFLICT (id) DO NOTHING"
_TAKE_NUMBERS = "UPDATE link_sequence SET value = value + %s WHERE id = 1 RETURNING value"
# all accounts: records of the link belong to the installation
_PUT_RECORD = """
INSERT INTO link_linkrecord (kind, key, seq, body, gone) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (kind, key) DO UPDATE SET seq = excluded.seq, body = excluded.body, gone = excluded.gone
"""
_PUT_SET_ENTRY = """
INSERT INTO link_setentry (name, hash, seq, present) VALUES (%s, %s, %s, %s)
ON CONFLICT (name, hash) DO UPDATE SET seq = excluded.seq, present = excluded.present
"""
_LOCK_LIFE = "UPDATE link_sequence SET value = value WHERE id = 1 RETURNING value, base"
_MOVE_RECORDS = "UPDATE link_linkrecord SET seq = seq + %s"  # all accounts: a new life numbers everything anew
_MOVE_SET_ENTRIES = "UPDATE link_setentry SET seq = seq + %s"  # all accounts: a new life numbers everything anew
_MOVE_SEQUENCE = "UPDATE link_sequence SET value = value + %s, base = base + %s WHERE id = 1"


class OutsideTransactionError(RuntimeError):
    """Something was published outside of `transaction.write()`: a bug of the caller."""


@dataclass(slots=True)
class _Published:
    """What a transaction has published so far; the last word about a key counts."""

    records: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    entries: dict[tuple[str, int], bool] = field(default_factory=dict)


def publish(record: Record) -> None:
    """Tell relays how a record is now. Inside of `transaction.write()` only.

    Raises:
        OutsideTransactionError: There is no transaction.
    """
    if isinstance(record, Gone):
        withdraw(record.what, record.id)
        return
    _collected().records[KINDS[type(record)], record.id] = msgspec.json.encode(record)


def withdraw(kind: str, key: str) -> None:
    """Tell relays that a record is no more. Withdrawing what is not there is harmless."""
    _collected().records[kind, key] = None


def publish_hash(name: str, hashed: int, *, present: bool) -> None:
    """Tell relays that a hash (64 bits, unsigned) came into an address set or left it."""
    _collected().entries[name, to_signed(hashed)] = present


def to_signed(hashed: int) -> int:
    """Give 64 unsigned bits as the signed number that columns hold; the order stays the same."""
    return hashed - _MIDDLE


def to_unsigned(stored: int) -> int:
    """Give what a column holds as 64 unsigned bits."""
    return stored + _MIDDLE


@contextmanager
def collecting() -> Iterator[None]:
    """Collect what the block publishes; number and write it when the block is done. Inside of an atomic block; nests."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    if getattr(wrapper, _ATTRIBUTE, None) is not None:
        yield
        return
    published = _Published()
    setattr(wrapper, _ATTRIBUTE, published)
    try:
        yield
    finally:
        setattr(wrapper, _ATTRIBUTE, None)
    if published.records or published.entries:
        _number(published)


def begin_life() -> None:
    """Begin a new life after a restore: followers that know numbers of an earlier one start from nothing.

    All numbers move beyond those that any life before can have given. Inside of `transaction.write()` only.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_ROW)
        cursor.execute(_LOCK_LIFE)
        value, base = cursor.fetchone()
        by = max(int(time.time()) << _LIFE_BITS, value + (1 << _LIFE_BITS)) - base
        cursor.execute(_MOVE_RECORDS, (by,))
        cursor.execute(_MOVE_SET_ENTRIES, (by,))
        cursor.execute(_MOVE_SEQUENCE, (by, by))


def _number(published: _Published) -> None:
    count = len(published.records) + len(published.entries)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_NUMBERS, (count,))
        taken = cursor.fetchone()
        if taken is None:
            cursor.execute(_FIRST_ROW)
            cursor.execute(_TAKE_NUMBERS, (count,))
            taken = cursor.fetchone()
        seq = taken[0] - count
        for (kind, key), body in published.records.items():
            seq += 1
            cursor.execute(_PUT_RECORD, (kind, key, seq, body or b"", body is None))
        for (name, hashed), present in published.entries.items():
            seq += 1
            cursor.execute(_PUT_SET_ENTRY, (name, hashed, seq, present))


def _collected() -> _Published:
    published: _Published | None = getattr(connections[DEFAULT_DB_ALIAS], _ATTRIBUTE, None)
    if published is None:
        raise OutsideTransactionError("publish inside of transaction.write()")
    return published
