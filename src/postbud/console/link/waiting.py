"""Waiting for news: requests that wait for the sequence to move share one look at it, twenty times a second.

While nobody waits nothing looks. The same for both databases: a look reads one row, and costs some microseconds.
"""

import asyncio
import time
from collections.abc import Callable

from postbud.console.link.threads import Threads

LOOK_SECONDS = 0.05


class Sequencer:
    """What the sequence's last number is, not older than a look."""

    def __init__(self, threads: Threads, read: Callable[[], int]) -> None:
        """Take the thread that looks, and how."""
        self._threads = threads
        self._read = read
        self._lock: asyncio.Lock | None = None
        self._value = -1
        self._looked_at = float("-inf")
        self._ending = False

    def end(self) -> None:
        """Let nobody wait any more: the process stops."""
        self._ending = True

    async def wait_beyond(self, seq: int, until: float) -> bool:
        """Wait until the sequence is beyond `seq`, or until a time of the monotonic clock; tell whether it is.

        Raises:
            Busy, Unavailable.
        """
        while True:
            if await self._look() > seq:
                return True
            left = until - time.monotonic()
            if left <= 0 or self._ending:
                return False
            await asyncio.sleep(min(LOOK_SECONDS, left))

    async def _look(self) -> int:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_SECONDS / 2:
                self._value = await self._threads.run(self._read)
                self._looked_at = time.monotonic()
            return self._value
