"""Connections and rates of (egress source, site), held across the workers of a node (architecture s5).

Owns the decisions; `slots` owns the file that all workers of the node have mapped. What a worker holds counts while its lock is
held in the kernel, so what kill -9 leaves behind counts for nothing from the moment the process is gone. Everything is
synchronous and takes microseconds; one object belongs to one thread (the event loop's).

In doubt, wait: when the file cannot be made on a full disk, or no row is free (some 10,000 keys in use at once), `acquire` says
no and `reserve` says to come back, as counting alone could go over a limit. A full disk is looked at again every second; once
made, the file has all its blocks and a full disk no longer matters.

Rates are GCRA, the virtual scheduling form (ITU-T I.371 annex A): the file keeps a theoretical arrival time for each key.
A key is stored as 8 octets of BLAKE2b; two keys that collide (1 in 2^64) would share their limits.
"""

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from postbud.egress.slots import HELD_MAX, WORKERS, Slots

_RETRY_SECONDS = 1.0
_TOLERANCE_SECONDS = 1e-6  # doubles of seconds since 1970 are hardly finer
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True)
class _Mine:
    """What this worker has in a key's row; the row stays the key's while it is here."""

    row: int
    held: int = 0
    wants: bool = False


class NodeLimits:
    """Says whether one more connection, or one more message, is within what the whole node may do at a site."""

    def __init__(self, path: Path, worker: int, clock: Callable[[], float]) -> None:
        """Open the file as worker `worker` (0 to 63). The clock must be one for the whole node: `time.monotonic` is, on Linux.

        Raises:
            ValueError: The number is out of range.
            BlockingIOError: A worker of this number lives.
            OSError: The file cannot be opened, for another reason than a full disk.
        """
        if not 0 <= worker < WORKERS:
            raise ValueError(f"worker {worker} is not one of 0 to {WORKERS - 1}")
        self._path = path
        self._worker = worker
        self._clock = clock
        self._mine: dict[int, _Mine] = {}
        self._retry_at = 0.0
        self._closed = False
        self._slots: Slots | None = self._open()

    def acquire(self, key: str, limit: int) -> bool:
        """Take one more connection if all living workers together hold less than the limit."""
        slots = self._slots or self._reopen()
        if slots is None:
            return False
        limit = min(limit, HELD_MAX)
        digest = _digest(key)
        with slots:
            mine = self._mine.get(digest) or self._place(slots, digest)
            if mine is None:
                return False
            if sum(slots.counts(mine.row)) >= limit and slots.total_of_the_living(mine.row) >= limit:
                self._drop_if_idle(digest, mine)
                return False
            mine.held += 1
            slots.set_held(mine.row, mine.held)
        return True

    def release(self, key: str) -> None:
        """Give one connection back.

        Raises:
            ValueError: This worker holds none.
        """
        digest = _digest(key)
        mine = self._mine.get(digest)
        if self._slots is None:
            return
        if mine is None or not mine.held:
            raise ValueError(f"no connection of {key} is held here")
        mine.held -= 1
        self._slots.set_held(mine.row, mine.held)
        self._drop_if_idle(digest, mine)

    def want(self, key: str, wants: bool) -> None:  # noqa: FBT001 (says what it is)
        """Say that this worker waits for a connection, or no more. Without a free row nobody hears it."""
        digest = _digest(key)
        mine = self._mine.get(digest)
        slots = self._slots
        if slots is None or (mine is None and not wants):
            return
        if mine is None:
            with slots:
                mine = self._place(slots, digest)
                if mine is None:
                    return
                slots.set_wants(mine.row, wants)
        elif mine.wants != wants:
            slots.set_wants(mine.row, wants)
        mine.wants = wants
        self._drop_if_idle(digest, mine)

    def should_yield(self, key: str, limit: int, held: int) -> bool:
        """Tell whether another living worker wants one and this one holds more than its share, `limit` by those engaged.

        `held` is without those that are on their way to `release`, else all would go at once. The share is rounded up, so a
        worker may still have none while nobody has more than a share: see `starves`.
        """
        mine = self._mine.get(_digest(key))
        slots = self._slots
        if slots is None or mine is None or held <= 1:
            return False
        wants = slots.wants(mine.row)
        if wants.count(0) + mine.wants >= WORKERS:
            return False
        living = [worker for worker in slots.engaged(mine.row) if slots.lives(worker)]
        if not any(wants[worker] and worker != self._worker for worker in living):
            return False
        return held > -(-limit // len(living))

    def starves(self, key: str) -> bool:
        """Tell whether another living worker wants one, has none, and this one has."""
        mine = self._mine.get(_digest(key))
        slots = self._slots
        if slots is None or mine is None or not mine.held:
            return False
        wants = slots.wants(mine.row)
        if wants.count(0) + mine.wants >= WORKERS:
            return False
        counts = slots.counts(mine.row)
        return any(
            wants[worker] and not counts[worker] and worker != self._worker and slots.lives(worker)
            for worker in slots.engaged(mine.row)
        )

    def held(self, key: str) -> tuple[int, int]:
        """Give what this worker holds, and all living workers."""
        digest = _digest(key)
        mine = self._mine.get(digest)
        slots = self._slots
        row = None if slots is None else mine.row if mine else slots.find(digest)
        if slots is None or row is None:
            return 0, 0
        everybody = sum(held for worker, held in enumerate(slots.counts(row)) if held and slots.lives(worker))
        return (mine.held if mine else 0), everybody

    def reserve(self, key: str, per_second: float, burst: float = 1.0) -> float:
        """Use one of the key's rate and give 0.0, or use nothing and give the seconds to wait. A rate of 0 is no limit.

        In any t seconds all workers together get at most `per_second` * t + `burst`. Workers should ask with the same rate: who
        asks with a higher one shortens what is left of a lower one. More than `burst` ahead is never believed, so whatever the
        clock does, nobody waits longer than one interval.
        """
        if per_second <= 0:
            return 0.0
        slots = self._slots or self._reopen()
        if slots is None:
            return _RETRY_SECONDS
        interval = 1.0 / per_second
        burst = max(1.0, burst)
        digest = _digest(key)
        with slots:
            now = self._clock()
            row = slots.place(digest, now)
            if row is None:
                return _RETRY_SECONDS
            stored = slots.arrival(row)
            arrival = max(now, stored)  # now, if it is a NaN
            farthest = now + burst * interval
            if arrival > farthest + _TOLERANCE_SECONDS:
                arrival = farthest
            wait = arrival - (burst - 1.0) * interval - now
            if wait <= _TOLERANCE_SECONDS:
                slots.set_arrival(row, arrival + interval)
                return 0.0
            if arrival < stored:
                slots.set_arrival(row, arrival)
        return wait

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self._mine.clear()
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    # -- parts --------------------------------------------------------------------------------------------------------

    def _open(self) -> Slots | None:
        try:
            return Slots(self._path, self._worker)
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise
            self._retry_at = self._clock() + _RETRY_SECONDS
            return None

    def _reopen(self) -> Slots | None:
        if not self._closed and not self._retry_at - _RETRY_SECONDS <= self._clock() < self._retry_at:
            self._slots = self._open()
        return self._slots

    def _place(self, slots: Slots, digest: int) -> _Mine | None:
        row = slots.place(digest, self._clock())
        if row is None:
            return None
        mine = self._mine[digest] = _Mine(row)
        return mine

    def _drop_if_idle(self, digest: int, mine: _Mine) -> None:
        if not mine.held and not mine.wants:
            del self._mine[digest]


@lru_cache(4096)  # asked several times a message
def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
