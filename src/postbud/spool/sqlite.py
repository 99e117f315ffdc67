"""The spool as its users see it: one folder of accepted mail, owned by this process.

Owns the folder's life (open, watch, close) and the path of a batch from the event loop to the writer's thread and back.
Every method is for the event loop that opened it. The invariant of the whole package: when `commit` returns, the batch is
on disk, all of it (P1); when it raises anything but SpoolBroken, none of it is.
"""

import asyncio
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import apsw
import msgspec

from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.event import Event
from postbud.model.ids import DeliveryId, IdSource, MessageId, to_octets
from postbud.model.refusal import Refusal, Why
from postbud.spool.content import ContentStore, ContentWriter, checksum_of_file
from postbud.spool.disk import is_short
from postbud.spool.inflight import InFlight
from postbud.spool.opening import Opened, open_folder
from postbud.spool.quarantine import Quarantine
from postbud.spool.read import ContentRow, Damage, Reader
from postbud.spool.rows import NO_ALIENS, Aliens, Entry
from postbud.spool.schema import FILE_NAME
from postbud.spool.statements import Statements
from postbud.spool.values import (
    Batch,
    Damaged,
    Due,
    Filter,
    Gauges,
    SpoolBroken,
    SpoolSettings,
    StoredContent,
    Unknown,
    no_space,
)
from postbud.spool.write import Writer

_WATCH_SECONDS = 1.0
_SWEEP_SECONDS = 600.0
_PRUNED_AT_ONCE = 2_000


P = ParamSpec("P")
T = TypeVar("T")


class Spool:
    """One open spool."""

    def __init__(self, folder: Path, settings: SpoolSettings, opened: Opened, on_broken: Callable[[str], None]) -> None:
        """Start the threads on a folder that was opened; `Spool.open` is the way here."""
        self.folder = folder
        self.counters = opened.counters
        self.ids: IdSource = opened.ids
        self.spool_id: int = opened.spool_id
        self.in_flight: InFlight = opened.in_flight
        self.statements: Statements = opened.statements
        self._opened = opened
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._codec = opened.codec
        self._reserve = opened.reserve
        self._contents: ContentStore = opened.contents
        self._contents.on_error = self._disk_failed
        self._reader = Reader(opened.reader, opened.codec)
        self._reading = ThreadPoolExecutor(1, "spool-reader")
        self._gauge_reader = Reader(opened.gauge_reader, opened.codec)
        self._gauging = ThreadPoolExecutor(1, "spool-gauges")
        self._writer = Writer(
            opened.statements, folder, settings, opened.reserve, opened.counters, self._loop, on_broken, self._delete_files
        )
        self._quarantine = Quarantine(opened.statements, opened.ids, time.time)
        self._last_sweep = self._loop.time()
        self._timer = self._loop.call_later(_WATCH_SECONDS, self._watch)

    @classmethod
    async def open(
        cls, folder: Path, settings: SpoolSettings | None = None, *, on_broken: Callable[[str], None] = lambda _why: None
    ) -> Self:
        """Open a spool, making it when missing. `on_broken` is called once, on the loop, when the disk fails.

        Raises:
            SpoolLocked: Another process has it.
            SpoolUnusable: SQLite is too old, or the folder a newer Postbud's.
        """
        chosen = settings or SpoolSettings()
        opened = await asyncio.to_thread(open_folder, folder, chosen, time.time)
        return cls(folder, chosen, opened, on_broken)

    @property
    def broken(self) -> bool:
        """Whether the disk failed: nothing is accepted or recorded any more, the process should exit."""
        return self._writer.broken is not None

    @property
    def has_space(self) -> bool:
        """Whether accept finds the room it needs."""
        return self._reserve.has_space

    @property
    def suspects(self) -> frozenset[str]:
        """Deliveries that were under attempt at the last crash and did not finish since."""
        return self.statements.suspects

    def made(self, octets: bytes) -> bool:
        """Tell whether this spool made an id."""
        return self._codec.is_own(octets)

    @property
    def waiting_octets(self) -> int:
        """What waits for the disk."""
        return self._writer.waiting_octets

    def open_content(self) -> ContentWriter:
        """Start to receive a content.

        Raises:
            Refusal: NO_SPACE.
            SpoolBroken: The disk failed.
        """
        self._admit()
        return ContentWriter(self._contents)

    async def commit(self, batch: Batch) -> None:
        """Make a batch durable: one sync, shared with whatever else waits.

        When the caller is cancelled the outcome is unknown, and may well be that it is stored.

        Raises:
            Refusal: NO_SPACE, or TEMPORARY when too much waits or the batch itself is at fault: nothing of it is stored.
            SpoolBroken: The disk failed; whether it is stored is unknown.
        """
        if batch.messages and not batch.updates:  # a result may always be recorded, with the DSN that it owes
            self._admit()
        elif self._writer.broken is not None:
            raise SpoolBroken(self._writer.broken)
        future: asyncio.Future[None] = self._loop.create_future()
        files = await self._make_files_lasting(batch)
        try:
            entry = self._codec.entry(batch, files, NO_ALIENS, future)
        except KeyError:
            entry = self._codec.entry(batch, files, await self._aliens(batch), future)
        self._writer.submit(entry)
        await future

    async def load_due(
        self,
        now: float,
        limit: int,
        loaded: Container[DeliveryId],
        skipped: Iterable[tuple[str, str]] = (),
        skipped_accounts: Iterable[str] = (),
        since: float = 0.0,
    ) -> Due:
        """Give deliveries that are queued, not held and due, oldest first, without those in `loaded` and due before `since`.

        `skipped` are (account, domain), and whole accounts, whose mail is passed over, cheaply. One look is short, whatever it
        passes over: it was the last when it gives `until` as `now`. `loaded` is looked into by another thread. Damaged rows go
        to quarantine on the way.
        """
        found = await self._read(self._reader.load_due, since, now, limit, loaded, tuple(skipped), tuple(skipped_accounts))
        await self._put_aside(found.damage)
        return Due(found.deliveries, found.until)

    async def next_due_at(self, after: float | None = None) -> float | None:
        """Tell when the next delivery that is not held falls due; with `after`, of those due later than that."""
        return await self._read(self._reader.next_due_at, after)

    async def content(self, message_id: MessageId) -> StoredContent:
        """Read a content and the signatures cached with it.

        Raises:
            Damaged: It does not match its checksum or cannot be read, and is in quarantine now with its deliveries.
            Unknown: There is no such message.
        """
        while True:
            try:
                row = await self._read(self._reader.content, message_id)
                if row.file is not None:
                    row = await self._loop.run_in_executor(self._contents.pool, self._check_file, row)
                break
            except (Damaged, apsw.IOError, apsw.CorruptError, UnicodeDecodeError, OSError) as error:
                if is_short(error):  # says nothing of the content
                    await asyncio.sleep(_WATCH_SECONDS)
                    continue
                key = await self._read(self._reader.message_key, message_id)
                await self._put_aside([Damage("message", key, None, str(error))])
                raise Damaged(f"{message_id}: {error}") from error
        return StoredContent(row.content, row.signatures)

    async def find(self, wanted: Filter, limit: int, after: DeliveryId | None = None) -> list[tuple[Message, Delivery]]:
        """Give deliveries in the order of their messages; `after` is the last one of the page before. Unknown ids find none."""
        try:
            found = await self._read(self._reader.find, wanted, limit, after)
        except Unknown:
            return []
        await self._put_aside(found.damage)
        return found.deliveries

    async def events_after(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Give events as JSON with their numbers, in the order of their commits."""
        events, damage = await self._read(self._reader.events_after, seq, limit)
        await self._put_aside(damage)
        return events

    async def events_of(self, message_id: MessageId, limit: int = 1_000) -> list[Event]:
        """Give the kept events of one message in their order. Ids alike of other spools are told apart by the event itself."""
        found = await self._read(self._reader.events_of, message_id, limit)
        events = (msgspec.json.decode(data, type=Event) for data in found)
        return [event for event in events if event.message == message_id]

    async def answer(self, key: bytes, after: float) -> bytes | None:
        """Give what was answered to a request with this key after an instant, None when there was none."""
        return await self._read(self._reader.answer, key, after)

    async def forget_answers(self, before: float) -> int:
        """Forget answers to requests from before an instant; give how many."""
        count = 0
        while True:
            gone = await self.run(lambda connection: _forget_answers(connection, before))
            count += gone
            if gone < _PRUNED_AT_ONCE:
                return count

    async def accepted_event(self, public_id: str) -> Event | None:
        """Give the `accepted` event of a message or delivery id, None when it is not kept here (any more)."""
        at = int.from_bytes(to_octets(public_id)[:6], "big") / 1000
        found = await self._read(self._reader.accepted_event, public_id, at)
        return msgspec.json.decode(found, type=Event) if found is not None else None

    async def prune_events(self, shipped_seq: int, older_than: float) -> int:
        """Forget events that are shipped and older than an instant, or more than `event_rows`; give how many.

        The newest event always stays, so that numbers never start again.
        """
        count = 0
        while True:
            pruned = await self.run(lambda connection: _prune(connection, shipped_seq, older_than, self._settings.event_rows))
            count += pruned
            if pruned < _PRUNED_AT_ONCE:
                return count

    async def gauges(self) -> Gauges:
        """Tell what is in the spool, soon: behind no look through the queue, no content that is read and no sync."""
        return await self._loop.run_in_executor(self._gauging, lambda: self._gauge_reader.gauges(self._octets()))

    def link_body(self, file: Path) -> None:
        """Give a body file of another spool its second name, here; the folder is the caller's to sync. Idempotent."""
        self._contents.link(file)

    async def run(self, job: Callable[[apsw.Connection], T]) -> T:
        """Run a function in a transaction of the writer; give its answer once it is durable."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(Entry(future, job=job))
        return await future

    async def close(self) -> None:
        """Finish what waits, checkpoint, unlock. After a breakdown: just let go."""
        self._timer.cancel()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reading.shutdown()
        self._gauging.shutdown()
        self._writer.close()
        self._opened.close()
        self._opened.lock.release()

    def _admit(self) -> None:
        if self._writer.broken is not None:
            raise SpoolBroken(self._writer.broken)
        if not self._reserve.has_space:
            self.counters.refused_no_space += 1
            raise no_space("less free than the reserve")
        if self._writer.waiting_octets > self._settings.waiting_octets:
            raise Refusal(Why.TEMPORARY, "Too busy, try again later", "too much waits for the disk")

    async def _make_files_lasting(self, batch: Batch) -> dict[int, tuple[str, int]]:
        files: dict[int, tuple[str, int]] = {}
        for place, new in enumerate(batch.messages):
            if isinstance(new.content.body, Path):
                make = self._contents.make_lasting
                try:
                    files[place] = await self._loop.run_in_executor(self._contents.pool, make, new.content.body)
                except OSError as error:
                    self._delete_files([name for name, _ in files.values()])
                    raise self._contents.refusal(error) from error
        return files

    async def _aliens(self, batch: Batch) -> Aliens:
        """Give the keys of adopted ids; one that is unknown gets a key that no row has, so that its update does nothing."""
        ids = self._codec.alien_ids(batch)
        if batch.messages:
            return await self.run(lambda connection: make_aliens(connection, ids))
        known = await self._read(self._reader.aliens, ids)
        return {octets: known.get(octets, 0) for octets in ids}

    def _check_file(self, row: ContentRow) -> ContentRow:
        path = self._contents.lasting / str(row.file)
        if checksum_of_file(path) != row.file_crc:
            raise Damaged("body file does not match its checksum")
        return row._replace(content=Content(row.content.header, path, row.content.facts))

    def _octets(self) -> int:
        files = [self.folder / FILE_NAME, self.folder / f"{FILE_NAME}-wal"]
        return self._contents.octets + sum(file.stat().st_size for file in files if file.exists())

    async def _put_aside(self, damage: list[Damage]) -> None:
        if damage:
            count = await self.run(lambda connection: self._quarantine.put(connection, damage))
            self.counters.quarantined += count

    async def _read(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await self._loop.run_in_executor(self._reading, partial(function, *arguments, **named))

    def _delete_files(self, names: list[str]) -> None:
        self._contents.pool.submit(self._contents.delete, names)

    def _disk_failed(self, why: str) -> None:
        self._writer.break_down(why)

    def _watch(self) -> None:
        self._timer = self._loop.call_later(_WATCH_SECONDS, self._watch)
        self._reserve.check()
        if self._loop.time() - self._last_sweep >= _SWEEP_SECONDS:
            self._last_sweep = self._loop.time()
            self._reading.submit(self._contents.sweep, self._reader.is_named, self._settings.orphan_seconds)


def _prune(connection: apsw.Connection, shipped_seq: int, older_than: float, rows: int) -> int:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('shipped', ?)", (shipped_seq,))
    connection.execute(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE seq <= :shipped AND seq < (SELECT max(seq) FROM event)"
        " AND (at < :older_than OR seq <= (SELECT max(seq) FROM event) - :rows) ORDER BY seq LIMIT :limit)",
        {"shipped": shipped_seq, "older_than": older_than, "rows": rows, "limit": _PRUNED_AT_ONCE},
    )
    return int(connection.changes())


def _forget_answers(connection: apsw.Connection, before: float) -> int:
    connection.execute(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE at < ? LIMIT ?)", (before, _PRUNED_AT_ONCE)
    )
    return int(connection.changes())


def make_aliens(connection: apsw.Connection, ids: set[bytes]) -> dict[bytes, int]:
    """Give keys to ids that other spools made: below all that were given before."""
    keys: dict[bytes, int] = {}
    lowest = int(connection.execute("SELECT coalesce(min(key), 0) FROM alien").get)
    for octets in sorted(ids):
        known = connection.execute("SELECT key FROM alien WHERE id = ?", (octets,)).get
        if known is None:
            lowest -= 1
            known = lowest
            connection.execute("INSERT INTO alien (id, key) VALUES (?, ?)", (octets, known))
        keys[octets] = int(known)
    return keys
