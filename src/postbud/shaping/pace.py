"""Pace: how fast one lane goes now. Slow start, and additive increase with multiplicative decrease as the site answers.

One `Pace` belongs to one (egress source, site) in one worker. It is told what happened and asked what is allowed; it holds no
clock and does no I/O. Two things move: the window (connections at once) and, after the site said "slow down", a rate.

| what happens | what follows |
|---|---|
| a new site | one connection; one more for each message delivered, up to the site's limit (slow start) |
| "slow down" (421, 4.7.x by its text …) | nothing for a while, then 70 % of the speed that was measured; half the window |
| "slow down" again, before anything was taken | the pause was too short: twice as long, the speed stays |
| it goes well | in `RECOVERY_SECONDS` the rate is where it was, then it doubles as often; after `FORGET_SECONDS` it is gone |
| no connection at all | the site is dead for a minute, twice as long each time; then one connection tries |
| one more connection is refused | the window is what the site took |

Times are seconds on the caller's clock. After TCP congestion avoidance (Jacobson 1988), with a rate beside the window because
mail providers count messages a minute as often as connections.
"""

import math
from dataclasses import dataclass

DECREASE = 0.7
RECOVERY_SECONDS = 300.0
FORGET_SECONDS = 1800.0
SETTLE_SECONDS = 5.0  # what was under way when the site said "slow down" says so too: one signal
CAPPED_SECONDS = 300.0
RATE_MIN = 1 / 60
_LEARN_RATE = 10.0  # a speed below this tells how little mail there was, not what the site takes
_HALF_LIFE_SECONDS = 10.0  # of the measured speed
_CATCH_UP_SECONDS = 0.2  # turns that came while everybody was busy are not lost


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """How long a site is left alone: first and at most, after "slow down" and after no connection. Seconds."""

    pause_seconds: float = 10.0
    pause_max_seconds: float = 600.0
    dead_seconds: float = 60.0
    dead_max_seconds: float = 1800.0
    account_seconds: float = 900.0  # one account at one site, after the site's words about it


DEFAULT_PACE = PaceSettings()


@dataclass(frozen=True, slots=True)
class PaceState:
    """What `postbud queue explain` shows."""

    connections: int
    messages_per_second: float | None
    paused_until: float | None
    dead_until: float | None
    why: str


class Pace:
    """Moves the limits of one lane. `ceiling` is the most connections that the site's rules allow."""

    def __init__(self, ceiling: int, now: float, settings: PaceSettings = DEFAULT_PACE) -> None:
        self._settings = settings
        self._ceiling = max(1, ceiling)
        self._window = 1.0
        self._threshold = float(self._ceiling)  # slow start ends here
        self._capped_at = self._ceiling
        self._capped_until = 0.0
        self._rate: float | None = None
        self._lost_rate = 0.0  # the speed at the last "slow down"
        self._slowed_at = -math.inf
        self._rated_at = now
        self._next_at = now  # the next message's turn, when there is a rate
        self._paused_until = 0.0
        self._pauses = 0
        self._dead_until = 0.0
        self._failures = 0
        self._forget_at = 0.0
        self._speed = 0.0
        self._measured_at = now
        self._resumed_at = now
        self._since = 0  # messages delivered since then
        self._why = ""

    # -- asked -------------------------------------------------------------------------------------------------------------

    def connections(self, now: float) -> int:
        """How many connections are of use now; 0 while the lane is paused or dead."""
        if now < self._paused_until or now < self._dead_until:
            return 0
        window = min(int(self._window), self._ceiling)
        if now < self._capped_until:
            window = min(window, self._capped_at)
        rate = self._rate_at(now)
        return max(1, window if rate is None else min(window, math.ceil(rate)))

    def delay_seconds(self, now: float) -> float:
        """How long the next message must wait; 0 means that it is its turn."""
        wait = max(self._paused_until, self._dead_until) - now
        if self._rate_at(now) is not None:
            wait = max(wait, self._next_at - now)
        return max(0.0, wait)

    def is_dead(self, now: float) -> bool:
        """Whether the site did not answer lately, and nothing should be tried."""
        return now < self._dead_until

    def remembers(self, now: float) -> bool:
        """Whether something was learned about the site that a new `Pace` would not know."""
        until = max(self._paused_until, self._dead_until, self._capped_until, self._forget_at if self._failures else 0.0)
        return now < until or self._rate_at(now) is not None

    def state(self, now: float) -> PaceState:
        """Give what is to be seen."""
        return PaceState(
            connections=self.connections(now),
            messages_per_second=self._rate_at(now),
            paused_until=self._paused_until if now < self._paused_until else None,
            dead_until=self._dead_until if now < self._dead_until else None,
            why=self._why,
        )

    # -- told --------------------------------------------------------------------------------------------------------------

    def started(self, now: float) -> None:
        """A message's transaction begins: its turn is used."""
        rate = self._rate_at(now)
        if rate is not None:
            self._next_at = max(self._next_at, now - _CATCH_UP_SECONDS) + 1.0 / rate

    def delivered(self, now: float, messages: int = 1) -> None:
        """The site took messages."""
        self._measure(now, messages)
        self._failures = 0
        if now - self._slowed_at < SETTLE_SECONDS:
            return
        self._pauses = 0
        if self._window < self._threshold:
            self._window += messages
        else:
            self._window += messages / self._window
        self._window = min(self._window, float(self._ceiling))

    def connected(self) -> None:
        """A session is open: the site lives."""
        self._failures = 0
        self._dead_until = 0.0

    def slow_down(self, now: float, why: str, dice: float) -> None:
        """The site said that it is too much. `dice` in [0, 1) spreads the workers."""
        if now - self._slowed_at < SETTLE_SECONDS:
            return
        self._why = why
        self._slowed_at = now
        if self._since or not self._lost_rate:
            rate = self._rate_at(now)
            self._measure(now, 0)
            speed = max(self._speed, self._since / max(1.0, now - self._resumed_at), _LEARN_RATE)
            self._lost_rate = max(speed if rate is None else min(speed, rate), RATE_MIN / DECREASE)
            self._window = self._threshold = max(1.0, self._window / 2)
        pause = min(self._settings.pause_seconds * 2.0**self._pauses, self._settings.pause_max_seconds) * (0.8 + 0.4 * dice)
        self._pauses = min(self._pauses + 1, 16)
        self._paused_until = max(self._paused_until, now + pause)
        self._rate = max(RATE_MIN, self._lost_rate * DECREASE)
        self._rated_at = self._next_at = self._resumed_at = self._paused_until
        self._speed, self._since = 0.0, 0

    def refused_connection(self, now: float, open_now: int, why: str) -> None:
        """The site refused one more connection while `open_now` others are open: that is what it takes."""
        self._capped_at = max(1, open_now)
        self._capped_until = now + CAPPED_SECONDS
        self._window = self._threshold = float(min(max(1.0, self._window), self._capped_at))
        self._why = why

    def failed(self, now: float, why: str, dice: float) -> None:
        """No connection could be made and none is open: leave the site alone for a while."""
        if now < self._dead_until:  # another connection that was begun before says so too: one signal
            return
        wait = min(self._settings.dead_seconds * 2.0**self._failures, self._settings.dead_max_seconds)
        self._failures = min(self._failures + 1, 16)
        self._dead_until = now + wait * (0.8 + 0.4 * dice)
        self._forget_at = self._dead_until + 2 * wait  # else who is alone in the lane would always find a new site
        self._window, self._threshold = 1.0, float(self._ceiling)
        self._why = why

    # -- parts -------------------------------------------------------------------------------------------------------------

    def _rate_at(self, now: float) -> float | None:
        """Give the rate as it has grown by now."""
        if self._rate is None:
            return None
        quiet = now - self._rated_at
        if quiet >= FORGET_SECONDS:
            self._rate = None
            return None
        if quiet <= 0:
            return self._rate
        if quiet <= RECOVERY_SECONDS:
            return self._rate + (max(self._lost_rate, self._rate) - self._rate) * quiet / RECOVERY_SECONDS
        return max(self._lost_rate, self._rate) * math.exp2(quiet / RECOVERY_SECONDS - 1)

    def _measure(self, now: float, messages: int) -> None:
        """Keep the speed: messages a second, weighted to the last seconds."""
        self._since += messages
        passed = max(0.0, now - self._measured_at)
        self._measured_at = max(self._measured_at, now)
        self._speed *= 0.5 ** (passed / _HALF_LIFE_SECONDS)
        self._speed += messages * math.log(2) / _HALF_LIFE_SECONDS
