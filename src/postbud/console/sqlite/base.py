"""A database backend for Django: its own for SQLite, with one file lock round everything that changes the WAL.

Every transaction begins with BEGIN IMMEDIATE under the lock (`lock`), and so does a single writing statement outside of one.
Checkpoints are made here only, after a commit, when the WAL has grown. Reads take nothing and never wait. The name of this
module is the one that Django looks for.
"""

import re
import sqlite3
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.backends.sqlite3.base import SQLiteCursorWrapper

from postbud.console.sqlite import wal_index
from postbud.console.sqlite.lock import WriteLock

_BUSY_SECONDS = 30.0  # nobody but us and a person with a shell has the database open; they may hold it for a moment
_CHECKPOINT_OCTETS = 16 * 1024 * 1024
_TRUNCATE_OCTETS = 64 * 1024 * 1024  # a WAL of this size was never read to its end by all readers: wait for them a little
_TRUNCATE_MILLISECONDS = 250
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA secure_delete = ON",
    "PRAGMA cache_size = -32768",
    "PRAGMA mmap_size = 268435456",
    "PRAGMA temp_store = MEMORY",
)
_WORD = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_CHANGES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_READING = frozenset({"SELECT", "VALUES", "EXPLAIN", "PRAGMA"})
_ALONE = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})
_WHOLE = frozenset({"VACUUM", "ATTACH", "DETACH"})  # not inside of a transaction


def writes(statement: str) -> bool:
    """Tell whether a statement changes the database. In doubt it does."""
    match = _WORD.match(statement)
    word = match[1].upper() if match else ""
    if word == "WITH":
        return _CHANGES.search(statement) is not None
    return word not in _READING and word not in _ALONE


class Cursor(SQLiteCursorWrapper):
    """A cursor that takes the lock for a writing statement outside of a transaction, and makes it one of its own."""

    wrapper: "DatabaseWrapper"
    _kept: list[Any] | None = None

    def execute(self, query: str, params: Any = None) -> Any:
        """Run a statement."""
        self._kept = None
        if self.wrapper.in_transaction or not writes(query):
            return super().execute(query, params)
        match = _WORD.match(query)
        if match is not None and match[1].upper() in _WHOLE:
            with self.wrapper.lock.taken():
                return super().execute(query, params)
        with self.wrapper.single_write():
            super().execute(query, params)
            self._kept = super().fetchall() if self.description else None
        return self

    def executemany(self, query: str, param_list: Any) -> Any:
        """Run a statement once for each of the parameters, all or none."""
        self._kept = None
        if self.wrapper.in_transaction or not writes(query):
            return super().executemany(query, param_list)
        with self.wrapper.single_write():
            return super().executemany(query, param_list)

    def fetchone(self) -> Any:
        """Give the next row, or None."""
        if self._kept is None:
            return super().fetchone()
        return self._kept.pop(0) if self._kept else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Give the next rows."""
        wanted = self.arraysize if size is None else size
        if self._kept is None:
            return super().fetchmany(wanted)
        rows, self._kept = self._kept[:wanted], self._kept[wanted:]
        return rows

    def fetchall(self) -> list[Any]:
        """Give the remaining rows."""
        if self._kept is None:
            return super().fetchall()
        rows, self._kept = self._kept, []
        return rows

    def __next__(self) -> Any:
        """Give the next row."""
        if self._kept is None:
            return super().__next__()
        if not self._kept:
            raise StopIteration
        return self._kept.pop(0)


class _SingleWrite:
    """A transaction of one statement, under the lock."""

    def __init__(self, wrapper: "DatabaseWrapper") -> None:
        self._wrapper = wrapper

    def __enter__(self) -> None:
        self._wrapper.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        connection = self._wrapper.connection
        try:
            if kind is None:
                connection.commit()
                self._wrapper.checkpoint_when_grown()
        finally:
            if connection.in_transaction:
                connection.rollback()
            self._wrapper.lock.release()


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to the console's database."""

    lock: WriteLock

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.path = Path(str(self.settings_dict["NAME"]))
        self.lock = WriteLock(self.path)

    @property
    def in_transaction(self) -> bool:
        """Whether SQLite is inside of a transaction."""
        return self.connection is not None and bool(self.connection.in_transaction)

    def get_connection_params(self) -> dict[str, Any]:
        """Add how long to wait for a stranger."""
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.setdefault("timeout", _BUSY_SECONDS)
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the database; that may recover the WAL, so it is done under the lock."""
        with self.lock.taken():
            self.path.touch(0o600)
            wal_index.join(self.path)
            try:
                connection = super().get_new_connection(conn_params)
                for pragma in _PRAGMAS:
                    connection.execute(pragma).fetchall()
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            except BaseException:
                wal_index.leave(self.path)
                raise
        return connection

    def create_cursor(self, name: str | None = None) -> Any:  # noqa: ARG002  # Django's signature
        """Give a cursor that knows this connection."""
        cursor = self.connection.cursor(factory=Cursor)
        cursor.wrapper = self
        return cursor

    def begin(self) -> None:
        """Take the lock and begin a transaction."""
        self.lock.take()
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.lock.release()
            raise

    def single_write(self) -> _SingleWrite:
        """Give a transaction for one statement."""
        return _SingleWrite(self)

    def checkpoint_when_grown(self) -> None:
        """Move the WAL into the database when it has grown. Under the lock, after a commit, which stands in any case."""
        written, waiting = self._wal_octets()
        if waiting < _CHECKPOINT_OCTETS:
            return
        try:
            if written < _TRUNCATE_OCTETS:
                self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                return
            self.connection.execute(f"PRAGMA busy_timeout = {_TRUNCATE_MILLISECONDS}")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            return  # a full disk, most likely: the next commit will say so to somebody who can answer
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")

    def _wal_octets(self) -> tuple[int, int]:
        """Give how much the WAL holds, and how much of it is not in the database yet.

        The file's size says neither: it stays when the WAL begins anew.
        """
        return wal_index.octets(self.path)

    def _start_transaction_under_autocommit(self) -> None:
        with self.wrap_database_errors:
            self.begin()

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]  # the stubs do not know it  # when it fails, Django rolls back
        if self.lock.held:
            self.checkpoint_when_grown()
            self.lock.release()

    def _rollback(self) -> None:
        super()._rollback()  # type: ignore[misc]  # the stubs do not know it
        self.lock.release()

    def _close(self) -> None:
        if self.connection is None:
            return
        try:
            with self.lock.taken():
                super()._close()  # type: ignore[misc]  # the stubs do not know it
                wal_index.leave(self.path)
        finally:
            self.lock.close()
