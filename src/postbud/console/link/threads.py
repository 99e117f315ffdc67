"""Database work of the link's process: a few threads, each with its own connection, and a bound on what waits for them.

Knows no request. Invariant: a connection that failed is closed before its thread works again.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import DatabaseError, close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")


class Busy(Exception):  # noqa: N818  # names the state
    """Too much waits already; come again."""


class Unavailable(Exception):  # noqa: N818  # names the state
    """The database does not answer; what was asked may or may not have happened."""


class Threads:
    """A pool of one kind of work."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        """Take how many threads work and how many calls may wait beside them."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + waiting
        self._now = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it in a thread.

        Raises:
            Busy: Too many calls wait.
            Unavailable: The database is at fault.
        """
        if self._now >= self._most:
            raise Busy
        self._now += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(_guarded, work, *args, **kwargs))
        finally:
            self._now -= 1

    def close(self) -> None:
        """Wait for what runs, close the threads' connections and end them."""
        together = threading.Barrier(self._threads)  # no thread takes two of these
        for ended in [self._pool.submit(_close, together) for _ in range(self._threads)]:
            ended.result()
        self._pool.shutdown()


def _close(together: threading.Barrier) -> None:
    together.wait()
    connections.close_all()


def _guarded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    close_old_connections()
    try:
        return work(*args, **kwargs)
    except DatabaseError as error:
        connections.close_all()
        raise Unavailable(f"{type(error).__name__}: {error}") from error
