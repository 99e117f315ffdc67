"""Opening a folder: lock, version, integrity, leftovers of the last process. Runs on one thread before any other starts."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw

from postbud.model.ids import DeliveryId, IdSource
from postbud.spool.content import ContentStore
from postbud.spool.disk import DAMAGE_MARK, FolderLock, Reserve, drop_reserve, is_full, sync_folder
from postbud.spool.inflight import InFlight
from postbud.spool.quarantine import Quarantine
from postbud.spool.read import Damage, Reader
from postbud.spool.rows import Codec
from postbud.spool.salvage import finish_switch, salvage
from postbud.spool.schema import FILE_NAME, find_damage, open_reader, open_writer, prepare, recount
from postbud.spool.statements import Statements
from postbud.spool.values import Counters, Damaged, SpoolSettings, SpoolUnusable

_SUSPECT_APART_SECONDS = 5.0
_SUSPECT_LONGEST_SECONDS = 120.0
_LEAST_FREE_OCTETS = 1024 * 1024  # with less, whatever SQLite says of an open that failed, it is the room


@dataclass(slots=True)
class Opened:
    """A folder that is locked, checked and clean."""

    lock: FolderLock
    connection: apsw.Connection
    reader: apsw.Connection
    gauge_reader: apsw.Connection
    statements: Statements
    codec: Codec
    spool_id: int
    ids: IdSource
    reserve: Reserve
    contents: ContentStore
    in_flight: InFlight
    counters: Counters

    def close(self) -> None:
        """Close all but the lock. Blocks."""
        self.contents.close()
        self.reader.close()
        self.gauge_reader.close()
        self.connection.close()
        self.in_flight.close()


def open_folder(folder: Path, settings: SpoolSettings, clock: Callable[[], float]) -> Opened:
    """Open a folder, making it when missing. On a full disk the reserve goes first: what is stored can still be delivered.

    Raises:
        SpoolLocked, SpoolUnusable.
    """
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)
    lock = FolderLock(folder)
    try:
        opened = _open_if_room(folder, settings, clock, lock)
        if opened is None:
            drop_reserve(folder)
            opened = _open_if_room(folder, settings, clock, lock)
        if opened is None:
            raise SpoolUnusable(f"{folder}: the disk is full, the spool cannot be opened")
        return opened
    except BaseException:
        lock.release()
        raise


def _open_if_room(folder: Path, settings: SpoolSettings, clock: Callable[[], float], lock: FolderLock) -> Opened | None:
    """Open, or give None when there is no room for it. What was half open is closed by then: nothing holds it any more."""
    try:
        return _open_locked(folder, settings, clock, lock)
    except OSError as error:
        if is_full(error):
            return None
        raise
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        stat = os.statvfs(folder)
        inodes_out = stat.f_files > 0 and stat.f_favail == 0
        if isinstance(error, apsw.FullError) or inodes_out or stat.f_bavail * stat.f_frsize < _LEAST_FREE_OCTETS:
            return None
        raise


def _open_locked(folder: Path, settings: SpoolSettings, clock: Callable[[], float], lock: FolderLock) -> Opened:
    path = folder / FILE_NAME
    marked = (folder / DAMAGE_MARK).exists()
    finish_switch(folder)
    counters = Counters()
    connection, spool_id, found = _open_checked(path, None if marked else settings.check_seconds)
    if found is not None:
        connection.close()
        counters.quarantined += salvage(folder, found, clock)
        connection, spool_id, found = _open_checked(path, None)
    if found is not None:
        raise SpoolUnusable(f"{path} is damaged beyond salvage: {found}")
    (folder / DAMAGE_MARK).unlink(missing_ok=True)
    reader = open_reader(path)
    codec = Codec(spool_id)
    statements = Statements(connection)
    ids = IdSource(spool_id, _rising_clock(recount(connection)), os.urandom)
    contents = ContentStore(folder, settings, lambda: os.urandom(12).hex())
    contents.sweep(Reader(reader, codec).is_named, 0.0)
    connection.execute("DELETE FROM signature WHERE message NOT IN (SELECT key FROM message)")
    in_flight = InFlight(folder / "inflight")
    opened = Opened(
        lock,
        connection,
        reader,
        open_reader(path),
        statements,
        codec,
        spool_id,
        ids,
        Reserve(folder, settings.settle_reserve_octets, settings.reserve_octets, settings.reserve_inodes),
        contents,
        in_flight,
        counters,
    )
    with connection:
        counters.quarantined += _note_suspects(opened, settings.crash_limit, clock)
    in_flight.clear()
    statements.look_again()
    return opened


def _open_checked(path: Path, seconds: float | None) -> tuple[apsw.Connection, int, str | None]:
    """Open the connection that writes; give it with the spool's number and the first damage found."""
    connection: apsw.Connection | None = None
    try:
        connection = open_writer(path)
        return connection, prepare(connection), find_damage(connection, seconds)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return connection or apsw.Connection(":memory:"), 0, str(error)


def _rising_clock(highest: int) -> Callable[[], int]:
    """Give a clock in milliseconds that never shows a time at or before that of the highest key: keys are made of it."""
    floor = (highest >> 16) + 1
    return lambda: max(int(time.time() * 1000), floor)


def _note_suspects(opened: Opened, limit: int, clock: Callable[[], float]) -> int:
    """Count the crash against what was under attempt: too often is quarantine, else it is tried again, apart (row 56)."""
    quarantine = Quarantine(opened.statements, opened.ids, clock)
    reader = Reader(opened.connection, opened.codec)
    aside = 0
    for place, delivery in enumerate(opened.in_flight.left_over):
        crashes = opened.connection.execute(
            "INSERT INTO suspect VALUES (?, 1) ON CONFLICT (delivery) DO UPDATE SET crashes = crashes + 1 RETURNING crashes",
            (delivery,),
        ).get
        row = _row(opened, reader, delivery)
        if row is None or crashes >= limit:
            opened.connection.execute("DELETE FROM suspect WHERE delivery = ?", (delivery,))
        if row is not None and crashes >= limit:
            damage = Damage("delivery", row[0], row[1], f"was under attempt at {crashes} crashes")
            aside += quarantine.put(opened.connection, [damage])
        elif row is not None and crashes > 1:  # one crash says little: nobody waits for it
            _put_off(opened, row, clock() + min(place * _SUSPECT_APART_SECONDS, _SUSPECT_LONGEST_SECONDS))
    return aside


def _row(opened: Opened, reader: Reader, delivery: DeliveryId) -> tuple[int, int, int, bytes] | None:
    try:
        key = reader.message_key(delivery)
    except LookupError:
        return None
    query = "SELECT message, key, sum, data FROM delivery WHERE key = ?"
    row: tuple[int, int, int, bytes] | None = opened.connection.execute(query, (key,)).fetchone()
    return row


def _put_off(opened: Opened, row: tuple[int, int, int, bytes], due_at: float) -> None:
    message, key, total, data = row
    try:
        delivery = opened.codec.delivery(key, total, data)
    except Damaged:
        return
    delivery.due_at = max(delivery.due_at, due_at)
    _, _, _, due_at, total, data = opened.codec.delivery_row(delivery, message, key)
    opened.connection.execute(
        "UPDATE delivery SET due_at = ?, sum = ?, data = ? WHERE message = ? AND key = ?", (due_at, total, data, message, key)
    )
