"""The file of the node's limits: who lives, one lock, and one row a key with a slot for each worker.

Owns the layout, the locks and where a key's row is. Knows no limit and no rate: `limits` decides. Invariants: a slot is
written by its worker alone, except that anybody who has the lock may clear the slots of the dead; a row belongs to its key
while a living worker holds or wants there, or while its rate's arrival time lies ahead; else another key may take it.

| octets | what |
|---|---|
| 0 | header: magic, version, worker capacity, rows; a file with another header is replaced |
| 4096 | keys, 8 octets each |
| then | arrival times of the rates, a double each |
| then | held: 2 octets for each worker, row by row |
| then | wants: 1 octet for each worker, row by row |

Locks are open file description locks (`F_OFD_SETLK`, fcntl(2)) on octets of the same file: octet 0 is the table's lock, octet
1 + n says that worker n lives. They die with the process, kill -9 included, however it comes, and unlike `flock` many fit in
one file; unlike POSIX locks they do not vanish when some other code of the process closes the same file, and two objects in one
process exclude each other. Threads that share an object do not: one thread uses it. A process that has one must not fork
without exec, as the child would keep the lock (and the descriptor is close-on-exec). Nobody may remove the file while workers
run: those that start later would make another and count apart.
"""

import fcntl
import mmap
import os
import struct
from pathlib import Path

WORKERS = 64
ROWS = 16384
HELD_MAX = 0xFFFF
_WINDOW = 64  # rows, from where its hash says, in which a key may be
_ALL_ROWS = ROWS + _WINDOW
_FAR_SECONDS = 3600.0

_HEADER = struct.pack("<8s4I", b"postbud\0", 1, WORKERS, ROWS, _WINDOW)  # version 1 of the layout
_KEYS = 4096
_ARRIVALS = _KEYS + 8 * _ALL_ROWS
_HELD = _ARRIVALS + 8 * _ALL_ROWS
_WANTS = _HELD + 2 * WORKERS * _ALL_ROWS
_OCTETS = _WANTS + WORKERS * _ALL_ROWS

# Native: a slot is then read by one load, also where no lock is held. It is written through a memory view, by one store: what
# `struct.pack_into` writes is zero first, and who reads meanwhile counts too little.
_FLOCK = struct.Struct("@hhqqi4x")
_KEY = struct.Struct("@Q")
_KEYS_OF_WINDOW = struct.Struct(f"@{_WINDOW}Q")
_COUNTS = struct.Struct(f"@{WORKERS}H")
_NOTHING_HELD = bytes(2 * WORKERS)
_NOTHING_WANTED = bytes(WORKERS)


def _flock(kind: int, octet: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, octet, 1, 0)


_LOCK = _flock(fcntl.F_WRLCK, 0)
_UNLOCK = _flock(fcntl.F_UNLCK, 0)
_LIFE = [_flock(fcntl.F_WRLCK, 1 + worker) for worker in range(WORKERS)]


class Slots:
    """The open file, as one living worker sees it."""

    def __init__(self, path: Path, worker: int) -> None:
        """Open or make the file, say that this worker lives, and clear what a dead one of its number left.

        Raises:
            BlockingIOError: A worker of this number lives.
            OSError: The file cannot be had whole. Every octet of it is allocated here, as writing to a hole of a mapped file
                on a full disk would kill the process (SIGBUS).
        """
        self._worker = worker
        self._file, self._map = _open(path)
        self._held = memoryview(self._map)[_HELD:_WANTS].cast("H")
        self._arrivals = memoryview(self._map)[_ARRIVALS:_HELD].cast("d")
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LIFE[worker])
        except OSError:
            self.close()
            raise
        for low in (_HELD + 2 * worker, _HELD + 2 * worker + 1):
            self._map[low : _WANTS : 2 * WORKERS] = bytes(_ALL_ROWS)
        self._map[_WANTS + worker : _OCTETS : WORKERS] = bytes(_ALL_ROWS)
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _UNLOCK)

    def close(self) -> None:
        """Be dead to the others."""
        self._held.release()
        self._arrivals.release()
        self._map.close()  # it has a descriptor of the same open file, which would keep the locks
        os.close(self._file)

    def __enter__(self) -> None:
        """Take the table's lock. Who has it computes for microseconds and waits for nothing."""
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, _LOCK)

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _UNLOCK)

    def lives(self, worker: int) -> bool:
        """Ask the kernel whether a worker's lock is held."""
        if worker == self._worker:
            return True
        answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _LIFE[worker])
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    # -- rows -----------------------------------------------------------------------------------------------------------------

    def find(self, key: int) -> int | None:
        """Find a key's row."""
        first = key % ROWS
        keys = _KEYS_OF_WINDOW.unpack_from(self._map, _KEYS + 8 * first)
        return first + keys.index(key) if key in keys else None

    def place(self, key: int, now: float) -> int | None:
        """Find a key's row, or give it one that is idle; None: nothing is idle where it may be. Needs the lock."""
        row = self.find(key)
        if row is not None:
            return row
        rows = range(key % ROWS, key % ROWS + _WINDOW)
        row = next((row for row in rows if self._is_idle(row, now)), None)
        if row is None:
            living: dict[int, bool] = {}
            row = next((row for row in rows if self._is_idle_without_the_dead(row, now, living)), None)
        if row is not None:
            self.set_arrival(row, 0.0)
            _KEY.pack_into(self._map, _KEYS + 8 * row, key)
        return row

    def _is_idle(self, row: int, now: float) -> bool:
        held, wants = _HELD + 2 * WORKERS * row, _WANTS + WORKERS * row
        return (
            not now < self.arrival(row) <= now + _FAR_SECONDS  # farther ahead: the clock went back
            and self._map[held : held + 2 * WORKERS] == _NOTHING_HELD
            and self._map[wants : wants + WORKERS] == _NOTHING_WANTED
        )

    def _is_idle_without_the_dead(self, row: int, now: float, living: dict[int, bool]) -> bool:
        for worker in self.engaged(row):
            if worker not in living:
                living[worker] = self.lives(worker)
            if not living[worker]:
                self._clear(row, worker)
        return self._is_idle(row, now)

    def arrival(self, row: int) -> float:
        """Give the theoretical arrival time of a row's rate, as it stands there."""
        return self._arrivals[row]

    def set_arrival(self, row: int, at: float) -> None:
        """Set it. Needs the lock."""
        self._arrivals[row] = at

    # -- slots ----------------------------------------------------------------------------------------------------------------

    def counts(self, row: int) -> tuple[int, ...]:
        """Give what each worker holds, living or dead."""
        return _COUNTS.unpack_from(self._map, _HELD + 2 * WORKERS * row)

    def wants(self, row: int) -> bytes:
        """Give an octet for each worker, living or dead: not 0 if it wants one."""
        start = _WANTS + WORKERS * row
        return self._map[start : start + WORKERS]

    def engaged(self, row: int) -> list[int]:
        """Name the workers, living or dead, that hold or want one."""
        wants = self.wants(row)
        return [worker for worker, held in enumerate(self.counts(row)) if held or wants[worker]]

    def set_held(self, row: int, held: int) -> None:
        """Set what this worker holds: more needs the lock, less does not."""
        self._held[WORKERS * row + self._worker] = held

    def set_wants(self, row: int, wants: bool) -> None:  # noqa: FBT001 (a setter)
        """Set whether this worker wants one."""
        self._map[_WANTS + WORKERS * row + self._worker] = wants

    def total_of_the_living(self, row: int) -> int:
        """Sum what living workers hold, and clear what the dead left. Needs the lock."""
        for worker in self.engaged(row):
            if not self.lives(worker):
                self._clear(row, worker)
        return sum(self.counts(row))

    def _clear(self, row: int, worker: int) -> None:
        self._held[WORKERS * row + worker] = 0
        self._map[_WANTS + WORKERS * row + worker] = 0


def _open(path: Path) -> tuple[int, mmap.mmap]:
    """Give the file with its lock held, mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLKW, _LOCK)
            if _is_current(file, path):
                return file, mmap.mmap(file, _OCTETS)
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_current(file: int, path: Path) -> bool:
    """See that the locked file is the one at the path and has our layout; else remove it, so that the next open makes one."""
    try:
        at_path = path.stat()
    except FileNotFoundError:
        return False
    found = os.fstat(file)
    if (found.st_dev, found.st_ino) != (at_path.st_dev, at_path.st_ino):
        return False
    if found.st_size and (found.st_size != _OCTETS or os.pread(file, len(_HEADER), 0) != _HEADER):
        path.unlink()  # workers that have it open count among themselves until they end
        return False
    os.posix_fallocate(file, 0, _OCTETS)
    if not found.st_size:
        os.pwrite(file, _HEADER, 0)  # last: a file that was not finished has none
    return True
