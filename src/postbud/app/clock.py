"""The relay's clock: wall time that no jump can carry away (row 24).

While the process runs, time goes on by the monotonic clock. A wall clock that jumps more than a minute is not followed at
once but approached by at most a tenth of the time that passes, so that a wrong clock expires nothing and delays nothing;
a restart begins from the wall clock again.
"""

from collections.abc import Callable

_JUMP_SECONDS = 60.0
_SLEW = 0.1


class SteadyClock:
    """Gives seconds since 1970. Call it; it keeps no thread."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._at = wall()
        self._read_at = monotonic()
        self.jumped = False

    def __call__(self) -> float:
        """Give the time."""
        read_at = self._monotonic()
        passed, self._read_at = read_at - self._read_at, read_at
        self._at += passed
        wall = self._wall()
        apart = wall - self._at
        self.jumped = abs(apart) > _JUMP_SECONDS
        if self.jumped:
            self._at += max(-passed, min(passed, apart)) * _SLEW
        else:
            self._at = wall
        return self._at
