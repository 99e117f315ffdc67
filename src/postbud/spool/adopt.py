"""Taking over an orphaned spool: a worker's folder when there are fewer workers than before.

Moves messages with their deliveries and signatures, events that were not shipped, and quarantine, in the order of their keys.
Each step is one commit in the adopting spool, which also notes how far it came, then one in the orphan, which forgets what
was moved. A kill in between loses nothing and doubles nothing: what the mark covers is forgotten before going on.
An empty orphan's folder is deleted.
"""

import asyncio
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from postbud.spool.disk import sync_folder
from postbud.spool.failpoint import fp
from postbud.spool.opening import Opened, open_folder
from postbud.spool.quarantine import Quarantine
from postbud.spool.read import Damage, Reader
from postbud.spool.rows import checksum
from postbud.spool.sqlite import Spool, make_aliens
from postbud.spool.statements import INSERT_DELIVERIES, INSERT_MESSAGES, INSERT_SIGNATURES
from postbud.spool.values import Damaged, SpoolLocked, SpoolSettings

_MESSAGES_AT_ONCE = 200
_OCTETS_AT_ONCE = 4 * 1024 * 1024
_EVENTS_AT_ONCE = 1_000
_LOWEST = -(1 << 63)
_SHIPPED = "SELECT coalesce((SELECT value FROM meta WHERE name = 'shipped'), 0)"


async def adopt(folder: Path, into: Spool, *, shipped_seq: Callable[[int], int] = lambda _spool_id: 0) -> int:
    """Move all that a folder holds into an open spool, and delete the folder; give the number of deliveries.

    `shipped_seq` tells, by the orphan's number, up to where its events were shipped already. A folder that somebody has open
    is no orphan: 0.

    Raises:
        Refusal, SpoolBroken: The adopting spool cannot take more now; call again later.
        SpoolUnusable: The orphan cannot be opened.
    """
    try:
        opened = await asyncio.to_thread(
            open_folder, folder, SpoolSettings(reserve_octets=0, settle_reserve_octets=0), time.time
        )
    except SpoolLocked:
        return 0
    try:
        orphan = _Orphan(opened, folder, into)
        moved = await orphan.move_messages()
        await orphan.move_events(shipped_seq(opened.spool_id))
        await orphan.move_quarantine()
        await orphan.move_answers()
        await asyncio.to_thread(orphan.close)
        await asyncio.to_thread(shutil.rmtree, folder)
    finally:
        opened.lock.release()
    return moved


@dataclass(slots=True)
class _Step:
    """Rows to move: decoded enough to be given new keys."""

    last: int = _LOWEST
    octets: int = 0
    messages: list[tuple[bytes, str | None, bytes, bytes, bytes]] = field(default_factory=list)
    deliveries: list[tuple[bytes, bytes, int, float, bytes, str, str]] = field(default_factory=list)
    signatures: list[tuple[bytes, bytes]] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


class _Orphan:
    def __init__(self, opened: Opened, folder: Path, into: Spool) -> None:
        self._opened = opened
        self._source = opened.connection
        self._codec = opened.codec
        self._folder = folder
        self._into = into

    async def move_messages(self) -> int:
        await asyncio.to_thread(self._forget_messages, await self._mark("messages", _LOWEST))
        moved = 0
        while True:
            step = await asyncio.to_thread(self._read_messages)
            if step.last == _LOWEST:
                return moved
            await asyncio.to_thread(self._link_files, step)
            await self._into.run(partial(self._write_messages, step))
            fp("adopt_between")
            await asyncio.to_thread(self._forget_messages, step.last)
            moved += len(step.deliveries)

    async def move_events(self, shipped: int) -> None:
        """Move what is not known as shipped; a consumer that sees an event twice knows it by its id."""
        mark = max(shipped, self._source.execute(_SHIPPED).get, await self._mark("events", 0))
        query = "SELECT seq, at, sum, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
        while rows := await asyncio.to_thread(self._rows, query, mark, _EVENTS_AT_ONCE):
            mark = rows[-1][0]
            await self._into.run(partial(self._write_events, rows))

    async def move_quarantine(self) -> None:
        mark = await self._mark("quarantine", 0)
        query = "SELECT number, at, kind, id, why, body_file, data FROM quarantine WHERE number > ? ORDER BY number LIMIT ?"
        while rows := await asyncio.to_thread(self._rows, query, mark, 1):
            row = rows[0]
            mark = row[0]
            if row[5] is not None:
                await asyncio.to_thread(self._link, [row[5]])
            await self._into.run(partial(self._write_quarantine, row))

    async def move_answers(self) -> None:
        """Take over what requests were answered; doing it twice does no harm."""
        rows = await asyncio.to_thread(self._source.execute("SELECT key, at, sum, data FROM idempotency").fetchall)
        for start in range(0, len(rows), _EVENTS_AT_ONCE):
            await self._into.run(partial(_write_answers, rows[start : start + _EVENTS_AT_ONCE]))

    def _rows(self, query: str, mark: int, limit: int) -> list[Any]:
        return self._source.execute(query, (mark, limit)).fetchall()

    def close(self) -> None:
        self._opened.close()

    async def _mark(self, stream: str, start: int) -> int:
        query = "SELECT coalesce((SELECT value FROM meta WHERE name = ?), ?)"
        return int(await self._into.run(lambda connection: connection.execute(query, (self._name(stream), start)).get))

    def _name(self, stream: str) -> str:
        return f"adopted {stream} of {self._opened.spool_id}"

    def _set_mark(self, connection: apsw.Connection, stream: str, value: int) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (self._name(stream), value))

    def _read_messages(self) -> _Step:
        """Read the next messages, whole; put damaged ones aside and read again."""
        while True:
            step = _Step()
            query = "SELECT key, body_file, meta_sum, sum, meta, header, body FROM message ORDER BY key LIMIT ?"
            for row in self._source.execute(query, (_MESSAGES_AT_ONCE,)):
                self._add_message(step, row)
                if step.octets > _OCTETS_AT_ONCE:
                    break
            if not step.damage:
                return step
            with self._source:
                quarantine = Quarantine(self._opened.statements, self._opened.ids, time.time)
                quarantine.put(self._source, step.damage)

    def _add_message(self, step: _Step, row: tuple[Any, ...]) -> None:
        key, file, meta_sum, total, meta, header, body = row
        try:
            decoded = self._codec.meta(key, meta_sum, meta)
            if checksum(key, (header, body)) != total:
                raise Damaged("content does not match its checksum")
        except Damaged as error:
            step.damage.append(Damage("message", key, None, str(error)))
            return
        message_id = self._codec.octets(decoded.message.id)
        query = "SELECT key, held, sum, data, account, domain FROM delivery WHERE message = ?"
        for delivery_key, held, delivery_sum, data, account, domain in self._source.execute(query, (key,)):
            try:
                delivery = self._codec.delivery(delivery_key, delivery_sum, data)
            except Damaged as error:
                step.damage.append(Damage("delivery", key, delivery_key, str(error)))
                continue
            identifier = self._codec.octets(delivery.id)
            step.deliveries.append((message_id, identifier, held, delivery.due_at, data, account, domain))
        signature = Reader(self._source, self._codec).signatures(key)
        if signature is not None:
            step.signatures.append((message_id, signature))
        step.messages.append((message_id, file, meta, header, body))
        step.octets += len(header) + len(body)
        step.last = key

    def _link_files(self, step: _Step) -> None:
        self._link([file for _, file, *_ in step.messages if file is not None])

    def _link(self, files: list[str]) -> None:
        """Give body files their second name, in the adopting spool. A file that is missing shows when it is read."""
        for file in files:
            self._into.link_body(self._folder / "content" / file)
        if files:
            sync_folder(self._into.folder / "content")

    def _write_messages(self, step: _Step, connection: apsw.Connection) -> None:
        ids = {row[0] for row in step.messages} | {row[1] for row in step.deliveries}
        keys = make_aliens(connection, {octets for octets in ids if not self._into.made(octets)})
        keys |= {octets: int.from_bytes(octets[:8], "big") for octets in ids - keys.keys()}
        messages = [
            (keys[octets], file, checksum(keys[octets], (meta,)), checksum(keys[octets], (header, body)), meta, header, body)
            for octets, file, meta, header, body in step.messages
        ]
        deliveries = [
            (keys[message], keys[octets], held, due_at, checksum(keys[octets], (data,)), data, account, domain)
            for message, octets, held, due_at, data, account, domain in step.deliveries
        ]
        signatures = [(keys[octets], checksum(keys[octets], (data,)), data) for octets, data in step.signatures]
        INSERT_MESSAGES.run(connection, messages)
        INSERT_DELIVERIES.run(connection, deliveries)
        INSERT_SIGNATURES.run(connection, signatures)
        self._set_mark(connection, "messages", step.last)

    def _write_events(self, rows: list[tuple[int, float, int, bytes]], connection: apsw.Connection) -> None:
        for seq, at, total, data in rows:
            if zlib.crc32(data, seq & 0xFFFFFFFF) == total:
                self._into.statements.add_event(at, data)
        self._set_mark(connection, "events", rows[-1][0])

    def _write_quarantine(self, row: tuple[Any, ...], connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO quarantine (at, kind, id, why, body_file, data) VALUES (?, ?, ?, ?, ?, ?)", row[1:])
        self._set_mark(connection, "quarantine", row[0])

    def _forget_messages(self, last: int) -> None:
        """Remove what was moved, up to a key, and the names of its files here."""
        with self._source:
            files = self._source.execute("SELECT body_file FROM message WHERE body_file IS NOT NULL AND key <= ?", (last,))
            names = [name for (name,) in files]
            self._source.execute("DELETE FROM delivery WHERE message <= ?", (last,))
            self._source.execute("DELETE FROM message WHERE key <= ?", (last,))
        self._opened.contents.delete(names)


def _write_answers(rows: list[tuple[Any, ...]], connection: apsw.Connection) -> None:
    connection.executemany("INSERT OR IGNORE INTO idempotency (key, at, sum, data) VALUES (?, ?, ?, ?)", rows)
