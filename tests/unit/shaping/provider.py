"""A provider that throttles, and a lane that meets it: a simulation in steps, without sockets or clocks.

The provider counts messages in windows of a minute and connections at once; beyond either it says 421 for a while. The
lane asks its `Pace` before each message, as the scheduler does.
"""

import heapq
import random
from dataclasses import dataclass, field

from postbud.shaping.pace import Pace


@dataclass(slots=True)
class Provider:
    """Takes `per_minute` messages in each minute and `connections` at once; None: no limit."""

    per_minute: int | None = None
    connections: int | None = None
    penalty_seconds: float = 0.0  # after a refusal everything is refused for so long
    _minute: int = -1
    _taken: int = 0
    _penalty_until: float = 0.0

    def connects(self, open_now: int) -> bool:
        """Judge one more connection."""
        return self.connections is None or open_now < self.connections

    def takes(self, now: float) -> bool:
        """Judge one message."""
        if self.per_minute is None:
            return True
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._taken = minute, 0
        if now < self._penalty_until or self._taken >= self.per_minute:
            self._penalty_until = max(self._penalty_until, now + self.penalty_seconds)
            return False
        self._taken += 1
        return True


@dataclass(slots=True)
class Run:
    """What happened: when messages were taken and refused, and what the lane allowed itself each second."""

    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    allowed: list[tuple[float, float | None, int]] = field(default_factory=list)

    def taken_between(self, start: float, end: float) -> int:
        """Count."""
        return sum(start <= at < end for at in self.taken)

    def refused_between(self, start: float, end: float) -> int:
        """Count."""
        return sum(start <= at < end for at in self.refused)


def simulate(provider: Provider, seconds: float, *, ceiling: int = 20, transaction_seconds: float = 0.25, seed: int = 1) -> Run:
    """Let a lane with endless mail meet a provider."""
    dice = random.Random(seed)
    pace = Pace(ceiling, 0.0)
    run = Run()
    busy: list[float] = []  # when each open connection ends its message
    now = 0.0
    second = -1
    while now < seconds:
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if int(now) > second:
            second = int(now)
            state = pace.state(now)
            run.allowed.append((now, state.messages_per_second, state.connections))
        while len(busy) < pace.connections(now) and pace.delay_seconds(now) <= 0:
            if not provider.connects(len(busy)):
                run.refused.append(now)
                pace.refused_connection(now, len(busy), "421 4.7.0 too many connections")
                break
            pace.started(now)
            heapq.heappush(busy, now + transaction_seconds * (0.8 + 0.4 * dice.random()))
            if provider.takes(now):
                run.taken.append(now)
                pace.connected()
                pace.delivered(now)
            else:
                run.refused.append(now)
                pace.slow_down(now, "421 4.7.0 too many", dice.random())
        now += 0.05
    return run
