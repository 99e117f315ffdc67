"""The file lock beside the database that every writer holds: one file, `<database>.lock`.

SQLite from 3.7.0 to 3.51.2 can lose a committed transaction when two connections write and checkpoint at the same moment
(https://sqlite.org/wal.html#walresetbug), and Python brings whichever SQLite the system has. So whatever changes the WAL (a
write, a checkpoint, opening and closing) happens under this lock. Reads never take it. It belongs to the open
file, so it holds between threads as between processes, and ends with a process that is killed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteLock:
    """One holder's view of the lock. Not for several threads at once; each connection has its own."""

    def __init__(self, database: Path) -> None:
        """Take the database's file; the lock's file is made when it is first taken."""
        self._path = database.with_name(database.name + ".lock")
        self._descriptor: int | None = None
        self.held = False

    def take(self) -> None:
        """Wait until nobody else has the lock."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.held = True

    def release(self) -> None:
        """Let the next one in. Again is harmless."""
        if self.held and self._descriptor is not None:
            self.held = False
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and close its file."""
        self.held = False
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock for the block; inside of it, joins the holder."""
        if self.held:
            yield
            return
        self.take()
        try:
            yield
        finally:
            self.release()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold a database's lock for the block: for who opens, copies or closes it without the backend."""
    lock = WriteLock(database)
    try:
        with lock.taken():
            yield
    finally:
        lock.close()
