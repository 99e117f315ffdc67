"""The thread that writes: group commit.

Everything that arrived while the last sync ran goes into the next transaction, and whatever one round of the event loop brings
stays together: alone, a batch costs five times the CPU of one among many. Owns the one connection that writes and checkpoints,
and what each error means: a batch that fails by itself does not fail its neighbours; a full disk refuses mail and still records
results, from the reserve; anything else at the disk leaves the outcome unknown and breaks the spool.
"""

import contextlib
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from postbud.model.refusal import Refusal, Why
from postbud.spool.disk import DAMAGE_MARK, Reserve, is_short, sync_folder
from postbud.spool.failpoint import fp
from postbud.spool.rows import Entry
from postbud.spool.statements import Statements
from postbud.spool.values import Counters, SpoolBroken, SpoolSettings, no_space

_GROUP_ENTRIES = 512
_GROUP_OCTETS = 16 * 1024 * 1024
_IDLE_SECONDS = 1.0
_NO_ROOM = frozenset({apsw.SQLITE_IOERR_SHMSIZE})

Result = tuple["Future[Any]", Any, BaseException | None]


class Writer:
    """Takes entries on the event loop and answers there."""

    def __init__(
        self,
        statements: Statements,
        folder: Path,
        settings: SpoolSettings,
        reserve: Reserve,
        counters: Counters,
        loop: AbstractEventLoop,
        on_broken: Callable[[str], None],
        on_files: Callable[[list[str]], None],
    ) -> None:
        """Start the thread. `on_broken` is called on the loop; `on_files` here, with body files that lost their rows."""
        self.statements = statements
        self.waiting_octets = 0
        self.broken: str | None = None
        self._connection = connection = statements.connection
        self._folder = folder
        self._lasting = folder / "content"
        self._page_octets = int(connection.pragma("page_size"))
        self._checkpoint_pages = settings.checkpoint_octets // self._page_octets
        self._reserve = reserve
        self._counters = counters
        self._loop = loop
        self._on_broken = on_broken
        self._on_files = on_files
        self._wal_pages = 0
        self._last_try = False
        connection.set_wal_hook(self._note_wal)
        self._queue: list[Entry] = []
        self._due = False  # what waits is to be written now
        self._stop = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def submit(self, entry: Entry) -> None:
        """Hand an entry over; its future is resolved when it is durable, or known not to be."""
        with self._wake:
            if not self._stop and self.broken is None:
                self.waiting_octets += entry.octets
                self._queue.append(entry)
                if len(self._queue) == 1:
                    self._loop.call_soon(self._rouse)
                return
        self._answer([(entry.future, None, SpoolBroken(self.broken or "spool is closed"))])

    def _rouse(self) -> None:
        with self._wake:
            self._due = True
            self._wake.notify()

    def close(self) -> None:
        """Finish what waits, checkpoint, end the thread. Blocks."""
        with self._wake:
            self._stop = True
            self._wake.notify()
        self._thread.join()

    def break_down(self, why: str) -> None:
        """Write nothing any more: the disk fails."""
        with self._wake:
            if self.broken is not None:
                return
            self.broken = why
            waiting, self._queue = self._queue, []
            self._wake.notify()
        self._answer([(entry.future, None, SpoolBroken(why)) for entry in waiting])
        self._call(self._on_broken, why)

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._commit(group)
                if self._wal_pages >= (self._checkpoint_pages if group else 1):
                    self._checkpoint()
            if self.broken is None and self._wal_pages:
                self._checkpoint()
        except BaseException as error:  # noqa: BLE001 (a writer that ended silently would leave every client waiting)
            self.break_down(f"writer: {error!r}")

    def _next_group(self) -> list[Entry] | None:
        """Wait for entries; nothing after a while without any, None at the end."""
        with self._wake:
            if not (self._due or self._stop or self.broken is not None):
                self._wake.wait(_IDLE_SECONDS if self._wal_pages else None)
            if not self._queue or not (self._due or self._stop):
                self._due = False
                return None if self._stop or self.broken is not None else []
            count = octets = 0
            for entry in self._queue:
                count, octets = count + 1, octets + entry.octets
                if count == _GROUP_ENTRIES or octets >= _GROUP_OCTETS:
                    break
            group = self._queue[:count]
            del self._queue[:count]
            self._due = bool(self._queue)
            self.waiting_octets -= octets
            return group

    def _commit(self, group: list[Entry]) -> None:
        """Make a group durable, together if that goes, else one by one."""
        try:
            results = self._transaction(group)
        except apsw.FullError as error:
            self._when_full(group, str(error))
        except apsw.Error as error:
            if _is_full(error):
                self._when_full(group, str(error))
            elif _is_fatal(error):
                self._fatal(group, error)
            else:
                self._one_by_one(group, error)
        except OSError as error:
            if is_short(error):
                self._one_by_one(group, error)
            else:
                self._fatal(group, error)
        except Exception as error:  # noqa: BLE001 (a job's or failpoint's own: it fails its batch only)
            self._one_by_one(group, error)
        else:
            fp("before_resolve")
            self._answer(results)

    def _transaction(self, group: list[Entry]) -> list[Result]:
        """Write and commit. Raises whatever went wrong, rolled back as far as the disk allows."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if any(entry.files for entry in group):
                sync_folder(self._lasting)
            files = self.statements.apply(group)
            results: list[Result] = [(entry.future, entry.job(connection) if entry.job else None, None) for entry in group]
            fp("before_commit")
            started = time.perf_counter()
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._counters.commit_seconds += time.perf_counter() - started
        self._counters.commits += 1
        self._counters.batches += len(group)
        fp("after_commit")
        if files:
            self._on_files(files)
        return results

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self.statements.look_again()

    def _one_by_one(self, group: list[Entry], error: BaseException) -> None:
        if len(group) > 1:
            for entry in group:
                self._commit([entry])
            return
        self._counters.failed += 1
        failure = error if isinstance(error, Refusal) else Refusal(Why.TEMPORARY, "Local error, try again later", repr(error))
        self._answer([(entry.future, None, failure) for entry in group])
        self._on_unwritten(group)

    def _when_full(self, group: list[Entry], why: str) -> None:
        """Refuse mail; record results, from the reserve and from what a checkpoint makes room for in the log (rows 18, 19)."""
        self._reserve.has_space = False
        refused = [entry for entry in group if entry.accepts]
        results = [entry for entry in group if not entry.accepts]
        self._counters.refused_no_space += len(refused)
        if results and not self._last_try:
            self._reserve.give_back()
            self._checkpoint()
            self._last_try = True
            self._commit(results)
            self._last_try = False
        else:
            refused += results
        self._answer([(entry.future, None, no_space(why)) for entry in refused])
        self._on_unwritten(refused)

    def _fatal(self, group: list[Entry], error: BaseException) -> None:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            with contextlib.suppress(OSError):  # those who wait must hear of it in any case
                (self._folder / DAMAGE_MARK).touch()
        self.break_down(why)
        self._answer([(entry.future, None, SpoolBroken(why)) for entry in group])

    def _on_unwritten(self, entries: list[Entry]) -> None:
        if files := [name for entry in entries for name in entry.files]:
            self._on_files(files)

    def _checkpoint(self) -> None:
        fp("before_checkpoint")
        started = time.perf_counter()
        try:
            in_log, copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.FullError, apsw.BusyError):
            self._wal_pages = 0  # the log waits; looked at again after the next commit
            return
        except apsw.Error as error:
            if not _is_full(error):
                self.break_down(f"checkpoint: {error}")
            self._wal_pages = 0
            return
        self._counters.checkpoints += 1
        self._counters.checkpoint_seconds += time.perf_counter() - started
        self._wal_pages = 0 if copied == in_log else self._wal_pages

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _answer(self, results: list[Result]) -> None:
        if results:
            self._call(_resolve, results)

    def _call(self, function: Callable[..., None], argument: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)


def _resolve(results: list[Result]) -> None:
    for future, value, error in results:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _is_full(error: apsw.Error) -> bool:
    return isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) in _NO_ROOM


def _is_fatal(error: apsw.Error) -> bool:
    """Tell a disk or file that fails from a statement that does; reading errors too, for what is on disk is then unknown."""
    return isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.CantOpenError | apsw.ReadOnlyError)
