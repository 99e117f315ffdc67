"""All live sessions of one worker: who is connected, the clock over their deadlines, status watch and drain.

One sweep a second looks at every session's deadline; that is cheaper than a timer that is re-armed for each command.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from postbud.smtpd.counters import SmtpCounters
from postbud.smtpd.limits import AuthThrottle, ConnectionCount
from postbud.smtpd.settings import Limits, Log

_SWEEP_SECONDS = 1.0
_LAST_WORDS_SECONDS = 0.5


class Live(Protocol):
    """What the registry asks of a session."""

    def sweep(self, now: float) -> None:
        """Close when a deadline has passed."""

    def recheck(self) -> None:
        """Ask the gate again whether the identity may send; close when it may not and no transaction is open."""

    def drain(self) -> None:
        """Say goodbye now, or after the transaction that is open."""

    def dismiss(self) -> None:
        """Say goodbye now, whatever is open."""

    def drop(self) -> None:
        """Cut the connection."""


class Sessions:
    """The sessions of one worker, shared by its listeners. `tasks` owns every task that serves them."""

    def __init__(self, limits: Limits, counters: SmtpCounters, log: Log, tasks: asyncio.TaskGroup) -> None:
        self.limits = limits
        self.counters = counters
        self.log = log
        self.tasks = tasks
        self.connections = ConnectionCount(limits.connections, limits.connections_per_address)
        self.throttle = AuthThrottle(limits)
        self.draining = False
        self._live: set[Live] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._timer: asyncio.TimerHandle | None = None
        self._serial = 0

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Live]:
        return iter(tuple(self._live))

    def next_serial(self) -> int:
        """Give the number by which logs name a session."""
        self._serial += 1
        return self._serial

    def add(self, session: Live) -> None:
        """Take a session under watch."""
        self._live.add(session)
        self._empty.clear()
        self.counters.connections_open += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def remove(self, session: Live) -> None:
        """Forget a session that is over. Idempotent."""
        if session in self._live:
            self._live.remove(session)
            self.counters.connections_open -= 1
            if not self._live:
                self._empty.set()

    def recheck(self) -> None:
        """Ask for every session whether its identity may still send. Call it when the directory changed."""
        for session in self:
            session.recheck()

    async def drain(self, seconds: float) -> None:
        """Let open transactions finish for so long, tell everybody else goodbye (421 4.3.2); then end them all."""
        self.draining = True
        for session in self:
            session.drain()
        if not await self._emptied(seconds):
            for session in self:
                session.dismiss()
            if not await self._emptied(_LAST_WORDS_SECONDS):
                for session in self:
                    session.drop()
                await asyncio.sleep(0)
        self.close()

    async def _emptied(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Stop the sweep. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for session in self:
            session.sweep(now)
        self._timer = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._live else None
