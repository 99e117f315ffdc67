"""A thread for work that lets go of the interpreter's lock (RSA): what waits together is done together, and answered at once.

Each hand-over between threads costs two switches of that lock, some 30 microseconds on a busy worker, as much as a tenth of a
signature; a pool that takes one job at a time pays them for every message, this pays them for every batch.
"""

import asyncio
import threading
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from typing import Any, TypeVar

_ANSWERED_AT_ONCE = 8  # so that the first of many need not wait for the last

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Offload:
    """Runs jobs in their order in one thread. Belongs to the event loop that made it."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._waiting: list[_Job] = []
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[], T]) -> T:
        """Give what a job gives, or raise what it raises."""
        future: Future[T] = self._loop.create_future()
        with self._wake:
            self._waiting.append((job, future))
            if len(self._waiting) == 1:
                self._loop.call_soon(self._rouse)
        return await future

    def _rouse(self) -> None:
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """End the thread; jobs that wait are not begun."""
        with self._wake:
            self._closing = True
            self._waiting.clear()
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                jobs, self._waiting = self._waiting, []
            for start in range(0, len(jobs), _ANSWERED_AT_ONCE):
                done = [(future, *_outcome(job)) for job, future in jobs[start : start + _ANSWERED_AT_ONCE]]
                try:
                    self._loop.call_soon_threadsafe(_answer, done)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return


def _outcome(job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return job(), None
    except BaseException as error:  # noqa: BLE001 (it is raised where the job was asked for)
        return None, error


def _answer(done: list[tuple["Future[Any]", Any, BaseException | None]]) -> None:
    for future, result, error in done:
        if future.done():  # cancelled meanwhile
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
