"""Salvage: a spool whose file is structurally damaged is built anew from every row that can still be read (rows 13, 14).

The tables are walked from both ends up to the damage, and between by the keys that other tables and indexes know. What does
not match its checksum, and what lost its other half, goes to quarantine with an event. The damaged files are kept in
`damaged-…/` for a person to look at. Works on closed folders only; a kill at any moment leaves either the old file or the new.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from postbud.model.ids import IdSource, spool_of, to_octets
from postbud.spool.disk import sync_folder
from postbud.spool.failpoint import fp
from postbud.spool.pages import records
from postbud.spool.quarantine import Quarantine
from postbud.spool.read import Damage
from postbud.spool.rows import Codec, checksum, key_of_event
from postbud.spool.schema import FILE_NAME, PAGE_OCTETS, create, page_one, set_spool_id
from postbud.spool.statements import Statements
from postbud.spool.values import Damaged

_UNREADABLE = (apsw.CorruptError, apsw.IOError, apsw.NotADBError)
_REBUILDING = "spool.rebuilding"
_REBUILT = "spool.rebuilt"
_SEQ_GAP = 10_000  # numbers of events that were perhaps lost at the end are not given again
_MESSAGE = (int, bytes | None, int, int, bytes, bytes, bytes)
_DELIVERY = (int, int, int, float, int, bytes, bytes, bytes)
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


def finish_switch(folder: Path) -> None:
    """Put a rebuilt file in the damaged one's place, if one waits for that. Does nothing otherwise."""
    if not (folder / _REBUILT).exists():
        return
    aside = folder / f"damaged-{int(time.time())}"
    aside.mkdir(mode=0o700, exist_ok=True)
    for suffix in ("-wal", "-shm", ""):
        old = folder / f"{FILE_NAME}{suffix}"
        if old.exists():
            old.rename(aside / old.name)
    sync_folder(aside)
    fp("salvage_switching")
    (folder / _REBUILT).rename(folder / FILE_NAME)
    sync_folder(folder)


def salvage(folder: Path, why: str, clock: Callable[[], float]) -> int:
    """Build a damaged spool anew; give how many rows went to quarantine."""
    new_path = folder / _REBUILDING
    new_path.unlink(missing_ok=True)
    old = _open_damaged(folder / FILE_NAME)
    new = apsw.Connection(str(new_path))
    new.execute("PRAGMA synchronous = FULL")
    create(new)
    try:
        with new:
            aside = _Rescue(old, new, folder / FILE_NAME, why, clock).run()
    finally:
        new.close()
        old.close()
    new_path.rename(folder / _REBUILT)
    sync_folder(folder)
    fp("salvage_built")
    finish_switch(folder)
    return aside


def _open_damaged(path: Path) -> apsw.Connection:
    """Open what is there; a first page that is no SQLite header gets that of an empty spool (same tables, same roots)."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except _UNREADABLE:
        connection.close()
        size = path.stat().st_size
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, page_one(path.with_name("spool.template"), size), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        connection = apsw.Connection(str(path))
    connection.execute("PRAGMA writable_schema = ON")  # read on in spite of a schema that does not quite agree
    return connection


class _Rescue:
    def __init__(self, old: apsw.Connection, new: apsw.Connection, path: Path, why: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._old = old
        self._new = new
        self._why = f"page damaged: {why}"[:200]
        self._clock = clock
        self._damage: list[Damage] = []

    def run(self) -> int:
        due = self._due_index()
        deliveries = self._deliveries(due)
        messages = self._messages({message for message, _ in deliveries} | {message for message, _ in due})
        self._read_leaves(due, deliveries, messages)
        spool_id = self._spool_id(messages)
        set_spool_id(self._new, spool_id)
        codec = Codec(spool_id)
        for row in messages.values():
            self._new.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)", (row[0], _text(row[1]), *row[2:]))
        for row in deliveries.values():
            values = (*row[:6], _text(row[6]), _text(row[7]))
            self._new.execute("INSERT INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._copy_events()
        self._copy_small("signature", "quarantine", "suspect", "meta", "idempotency")
        self._check_rows(codec, messages, deliveries)
        self._find_halves(messages, deliveries)
        return self._put_aside(spool_id, {message for message, _ in due - deliveries.keys()} & messages.keys())

    def _deliveries(self, due: set[tuple[int, int]]) -> dict[tuple[int, int], tuple[Any, ...]]:
        columns = "message, key, held, due_at, sum, data, CAST(account AS BLOB), CAST(domain AS BLOB)"
        found: dict[tuple[int, int], tuple[Any, ...]] = {}
        for order, beyond, start in (("", ">", (_LOWEST, _LOWEST)), (" DESC", "<", (_HIGHEST, _HIGHEST))):
            query = (
                f"SELECT {columns} FROM delivery WHERE (message, key) {beyond} (?, ?)"  # noqa: S608 (fixed texts)
                f" ORDER BY message{order}, key{order}"
            )
            found |= {(row[0], row[1]): row for row in self._read(query, start) if _fits(row, _DELIVERY)}
        point = f"SELECT {columns} FROM delivery WHERE message = ? AND key = ?"  # noqa: S608 (fixed texts)
        for place in due - found.keys():
            found.update((place, row) for row in self._read(point, place) if _fits(row, _DELIVERY))
        return found

    def _messages(self, known: set[int]) -> dict[int, tuple[Any, ...]]:
        columns = "key, CAST(body_file AS BLOB), meta_sum, sum, meta, header, body"
        found: dict[int, tuple[Any, ...]] = {}
        for order in ("", " DESC"):
            query = f"SELECT {columns} FROM message ORDER BY key{order}"  # noqa: S608 (fixed texts)
            for row in self._read(query):
                if row[0] in found:
                    break
                if not _fits(row, _MESSAGE):
                    continue
                found[row[0]] = row
        point = f"SELECT {columns} FROM message WHERE key = ?"  # noqa: S608 (fixed texts)
        for key in known - found.keys():
            found.update((key, row) for row in self._read(point, (key,)) if _fits(row, _MESSAGE))
        return found

    def _read_leaves(self, due: set[tuple[int, int]], deliveries: dict[Any, Any], messages: dict[int, Any]) -> None:
        """Take what other tables know of and no walk from a root finds straight from the leaf pages, if it matches its sum."""
        if not (due - deliveries.keys() or {message for message, _ in due} - messages.keys()):
            return
        with suppress(*_UNREADABLE):
            self._old.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        named = {message for message, _ in due}
        for rowid, values in records(self._path, PAGE_OCTETS):
            if rowid is None and len(values) == len(_DELIVERY):
                row = (*values[:3], float(values[3]) if isinstance(values[3], int) else values[3], *values[4:])
                if values[:2] in due - deliveries.keys() and _fits(row, _DELIVERY) and checksum(row[1], (row[5],)) == row[4]:
                    deliveries[row[:2]] = row
            elif rowid in named - messages.keys() and len(values) == len(_MESSAGE):
                row = (rowid, *values[1:])
                if _fits(row, _MESSAGE) and checksum(rowid, row[5:]) == row[3]:
                    messages[rowid] = row

    def _due_index(self) -> set[tuple[int, int]]:
        """Give the places that the index by due time knows."""
        found: set[tuple[int, int]] = set()
        for order in ("", " DESC"):
            query = f"SELECT message, key FROM delivery INDEXED BY delivery_due ORDER BY held{order}, due_at{order}"  # noqa: S608 (fixed texts)
            found |= {(row[0], row[1]) for row in self._read(query) if _fits(row, (int, int))}
        return found

    def _copy_events(self) -> None:
        first = last = 0
        for row in self._read("SELECT seq, at, sum, data FROM event ORDER BY seq"):
            self._add_event(row)
            first = row[0]
        for row in self._read("SELECT seq, at, sum, data FROM event ORDER BY seq DESC"):
            if row[0] <= first:
                break
            self._add_event(row)
            last = row[0]
        for seq in range(first + 1, last):
            for row in self._read("SELECT seq, at, sum, data FROM event WHERE seq = ?", (seq,)):
                self._add_event(row)

    def _add_event(self, row: tuple[Any, ...]) -> None:
        if not _fits(row, (int, float, int, bytes)):
            return
        seq, _, total, data = row
        self._new.execute("INSERT INTO event (seq, at, sum, data, message) VALUES (?, ?, ?, ?, ?)", (*row, key_of_event(data)))
        if zlib.crc32(data, seq & 0xFFFFFFFF) != total:
            self._damage.append(Damage("event", seq, None, "event row does not match its checksum"))

    def _copy_small(self, *tables: str) -> None:
        for table in tables:
            for row in self._read(f"SELECT * FROM {table}"):  # noqa: S608 (fixed texts)
                marks = ", ".join("?" * len(row))
                self._new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608 (fixed texts)

    def _check_rows(self, codec: Codec, messages: dict[int, Any], deliveries: dict[tuple[int, int], Any]) -> None:
        """Find rows whose octets changed, and give adopted ids their keys again."""
        ids: dict[bytes, int] = {}
        for key, (_, _, meta_sum, _, meta, _, _) in messages.items():
            try:
                ids[to_octets(codec.meta(key, meta_sum, meta).message.id)] = key
            except Damaged as error:
                self._damage.append(Damage("message", key, None, str(error)))
        for (message, key), row in deliveries.items():
            try:
                ids[to_octets(codec.delivery(key, row[4], row[5]).id)] = key
            except Damaged as error:
                self._damage.append(Damage("delivery", message, key, str(error)))
        aliens = [(octets, key) for octets, key in ids.items() if key < 0]
        self._new.executemany("INSERT OR IGNORE INTO alien VALUES (?, ?)", aliens)

    def _find_halves(self, messages: Iterable[int], deliveries: Iterable[tuple[int, int]]) -> None:
        whole = set(messages)
        named = {message for message, _ in deliveries}
        self._damage += [Damage("message", message, None, self._why) for message in sorted(whole ^ named)]

    def _put_aside(self, spool_id: int, short: set[int]) -> int:
        """Write what was found into the new file; `short` are messages that lost a delivery, and perhaps not their last."""
        statements = Statements(self._new)
        statements.skip(_SEQ_GAP)
        ids = IdSource(spool_id, lambda: int(self._clock() * 1000), os.urandom)
        quarantine = Quarantine(statements, ids, self._clock)
        halves = {message for table, message, delivery, _ in self._damage if table == "message" and delivery is None}
        told = [quarantine.tell_lost(self._new, message, self._why) for message in sorted(short - halves)]
        return quarantine.put(self._new, self._damage) + sum(told)

    def _spool_id(self, messages: dict[int, Any]) -> int:
        for row in self._read("SELECT value FROM meta WHERE name = 'spool'"):
            return int(row[0])
        for key, row in messages.items():
            if key > 0:
                try:
                    return spool_of(Codec(0).meta(key, row[2], row[4]).message.id)
                except Damaged:
                    continue
        return int.from_bytes(os.urandom(4), "big")

    def _read(self, query: str, bindings: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Give rows until the end or the damage."""
        try:
            yield from self._old.execute(query, bindings)
        except _UNREADABLE:
            return
        except (apsw.SQLError, UnicodeDecodeError):
            return


def _fits(row: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    """Tell whether a row's values have the kinds that were written: a damaged record header changes them."""
    return all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))


def _text(octets: bytes | None) -> str | None:
    return None if octets is None else octets.decode("utf-8", "replace")
