"""Reads from the WAL index (`-shm`) how much the WAL holds, without harming SQLite's locks on that file.

SQLite locks the file by POSIX locks, and a process loses all of those on a file when it closes any descriptor of it
(https://sqlite.org/howtocorrupt.html, 2.2). Invariant: a descriptor that was opened here is closed only when this process
has no connection to the database any more. Layout: https://sqlite.org/walformat.html#shm, numbers as this machine writes them.
"""

import os
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

_FRAME_OCTETS = 4096 + 24  # a page and its header
_HEAD_OCTETS = 100
_WRITTEN_AT, _MOVED_AT = 16, 96  # mxFrame, nBackfill
_NUMBER = struct.Struct("=I")


@dataclass(slots=True)
class _Open:
    """What this process has open of one database."""

    connections: int = 0
    descriptors: list[int] = field(default_factory=list)
    inode: int = 0


_lock = threading.Lock()
_open: dict[Path, _Open] = {}


def join(database: Path) -> None:
    """Count a connection that is about to be opened."""
    with _lock:
        _open.setdefault(database, _Open()).connections += 1


def leave(database: Path) -> None:
    """Count a connection that was closed; the last one closes what was opened here."""
    with _lock:
        known = _open.get(database)
        if known is None:
            return
        known.connections -= 1
        if known.connections <= 0:
            for descriptor in known.descriptors:
                os.close(descriptor)
            del _open[database]


def octets(database: Path) -> tuple[int, int]:
    """Give how much the WAL holds, and how much of it is not in the database yet. For who has a connection open."""
    path = database.with_name(database.name + "-shm")
    with _lock:
        known = _open.get(database)
        if known is None:
            return 0, 0
        try:
            inode = path.stat().st_ino
            if not known.descriptors or inode != known.inode:
                known.descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                known.inode = inode
            head = os.pread(known.descriptors[-1], _HEAD_OCTETS, 0)
        except OSError:
            return 0, 0
    if len(head) < _HEAD_OCTETS:
        return 0, 0
    (written,), (moved,) = _NUMBER.unpack_from(head, _WRITTEN_AT), _NUMBER.unpack_from(head, _MOVED_AT)
    return written * _FRAME_OCTETS, max(written - moved, 0) * _FRAME_OCTETS
