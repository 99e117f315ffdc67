"""The statements that write, each shown whole, and the order in which a group of entries becomes one transaction.

Rows go in many to a statement: every step of a statement lets go of the interpreter's lock and must win it back from a busy
event loop (500 single-row inserts beside one took 1.7 s here, 3 ms alone, 39 ms with 16 rows a statement).
Does not begin or commit.
"""

import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import apsw

from postbud.spool.leases import use
from postbud.spool.rows import Entry, key_of_event

_SIZES = (64, 32, 16, 8, 4, 2, 1)  # texts of all statements stay within apsw's cache of 100


class Bulk:
    """One statement for any number of rows."""

    def __init__(self, head: str, row: str, tail: str = "", *, once: bool = True) -> None:
        """Take the text before the rows, of one row, and behind them. Without `once`, naming a row again changes nothing."""
        self._by_size = [(size, head + ", ".join([row] * size) + tail) for size in _SIZES]
        self._once = once

    def run(self, connection: apsw.Connection, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run it for all rows, as few statements as that takes; give what the statements returned."""
        if not self._once and 2 < len(rows) < _SIZES[0]:
            rows = [*rows, *[rows[-1]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
        returned: list[Any] = []
        at = 0
        for size, sql in self._by_size:
            while len(rows) - at >= size:
                returned += connection.execute(sql, tuple(chain.from_iterable(rows[at : at + size]))).fetchall()
                at += size
        return returned


INSERT_MESSAGES = Bulk(
    "INSERT INTO message (key, body_file, meta_sum, sum, meta, header, body) VALUES ", "(?, ?, ?, ?, ?, ?, ?)"
)
INSERT_DELIVERIES = Bulk(
    "INSERT INTO delivery (message, key, held, due_at, sum, data, account, domain) VALUES ", "(?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_EVENTS = Bulk("INSERT INTO event (seq, at, sum, data, message) VALUES ", "(?, ?, ?, ?, ?)")
INSERT_ANSWERS = Bulk("INSERT OR REPLACE INTO idempotency (key, at, sum, data) VALUES ", "(?, ?, ?, ?)")
INSERT_SIGNATURES = Bulk("INSERT OR REPLACE INTO signature (message, sum, data) VALUES ", "(?, ?, ?)")
INSERT_ALIENS = Bulk("INSERT INTO alien (id, key) VALUES ", "(?, ?)")
UPDATE_DELIVERIES = Bulk(
    "UPDATE delivery SET held = v.column3, due_at = v.column4, sum = v.column5, data = v.column6 FROM (VALUES ",
    "(?, ?, ?, ?, ?, ?)",
    ") AS v WHERE delivery.message = v.column1 AND delivery.key = v.column2",
    once=False,
)
DELETE_DELIVERIES = Bulk("DELETE FROM delivery WHERE (message, key) IN (VALUES ", "(?, ?)", ")", once=False)
FILES_OF_FINISHED = Bulk(
    "SELECT group_concat(body_file, '/') FROM message WHERE body_file IS NOT NULL AND key IN (",
    "?",
    ") AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.key)",
    once=False,
)
DELETE_FINISHED = Bulk(
    "DELETE FROM message WHERE key IN (",
    "?",
    ") AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.key)",
    once=False,
)
DELETE_SIGNATURES = Bulk(
    "DELETE FROM signature WHERE message IN (",
    "?",
    ") AND NOT EXISTS (SELECT 1 FROM message WHERE message.key = signature.message)",
    once=False,
)
DELETE_ALIENS = Bulk("DELETE FROM alien WHERE key IN (", "?", ")", once=False)
DELETE_SUSPECTS = Bulk("DELETE FROM suspect WHERE delivery IN (", "?", ")", once=False)


class Statements:
    """Applies entries to the connection that writes. Remembers only what saves statements."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._last_seq = 0
        self._signatures = False
        self.suspects: frozenset[str] = frozenset()
        self.look_again()

    def look_again(self) -> None:
        """Learn from the tables what is remembered: at first, and after a roll-back."""
        run = self.connection.execute
        self._last_seq = int(run("SELECT coalesce(max(seq), 0) FROM event").get)
        self._signatures = bool(run("SELECT EXISTS (SELECT 1 FROM signature)").get)
        self.suspects = frozenset(row[0] for row in run("SELECT delivery FROM suspect"))

    def apply(self, entries: Sequence[Entry]) -> list[str]:
        """Write all rows of a group; give the body files that the commit leaves without a row."""
        run = self.connection
        if messages := _all(entry.messages for entry in entries):
            INSERT_MESSAGES.run(run, messages)
            INSERT_DELIVERIES.run(run, _all(entry.deliveries for entry in entries))
        if signatures := _all(entry.signatures for entry in entries):
            self._signatures = True
            INSERT_SIGNATURES.run(run, signatures)
        updates: dict[tuple[int, int], tuple[Any, ...]] = {}
        for entry in entries:
            updates.update(entry.updates)
        if updates:
            UPDATE_DELIVERIES.run(run, list(updates.values()))
        removals = _all(entry.removals for entry in entries)
        files = self._remove(removals) if removals else []
        if self.suspects and (settled := self.suspects.intersection(_all(entry.settled for entry in entries))):
            DELETE_SUSPECTS.run(run, [(delivery,) for delivery in settled])
            self.suspects -= settled
        self._add_events(entries)
        if answers := _all(entry.answers for entry in entries):
            INSERT_ANSWERS.run(run, answers)
        if uses := _all(entry.uses for entry in entries):
            use(run, uses)
        return files

    def skip(self, numbers: int) -> None:
        """Leave numbers of events out."""
        self._last_seq += numbers

    def add_event(self, at: float, data: bytes) -> None:
        """Write one event."""
        self._last_seq += 1
        seq = self._last_seq
        INSERT_EVENTS.run(self.connection, [(seq, at, zlib.crc32(data, seq & 0xFFFFFFFF), data, key_of_event(data))])

    def _add_events(self, entries: Sequence[Entry]) -> None:
        rows = []
        seq = self._last_seq
        for entry in entries:
            for at, data, message in entry.events:
                seq += 1
                rows.append((seq, at, zlib.crc32(data, seq & 0xFFFFFFFF), data, message))
        if rows:
            INSERT_EVENTS.run(self.connection, rows)
            self._last_seq = seq

    def _remove(self, removals: list[tuple[int, int]]) -> list[str]:
        run = self.connection
        DELETE_DELIVERIES.run(run, removals)
        return self.remove_finished({message for message, _ in removals}, [key for _, key in removals])

    def remove_finished(self, messages: set[int], deliveries: Sequence[int] = ()) -> list[str]:
        """Remove those of the messages that have no delivery left; give their body files."""
        run = self.connection
        keys = [(key,) for key in sorted(messages)]
        files = [name for (names,) in FILES_OF_FINISHED.run(run, keys) if names for name in names.split("/")]
        DELETE_FINISHED.run(run, keys)
        if self._signatures:
            DELETE_SIGNATURES.run(run, keys)
        if aliens := [(key,) for key in (*messages, *deliveries) if key < 0]:
            gone = [
                (key,)
                for (key,) in aliens
                if not run.execute("SELECT EXISTS (SELECT 1 FROM message WHERE key = ?)", (key,)).get
            ]
            DELETE_ALIENS.run(run, gone)
        return files


def _all(rows: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(rows))
