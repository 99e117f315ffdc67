"""Back-off: when a deferred delivery is due again (RFC 5321 s4.5.4.1: retries of at least 30 minutes in the long run)."""

from dataclasses import dataclass

_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Exponential with jitter. The first retry comes early, since greylisting passes after minutes.

    Seconds throughout. `jitter` 0.2 spreads each delay over ±20 %.
    """

    first_seconds: float = 300.0
    max_seconds: float = 4 * 3600.0
    factor: float = 2.0
    jitter: float = 0.2
    expire_after_seconds: float = 4 * 86400.0
    delay_notice_after_seconds: float = 4 * 3600.0

    def delay_seconds(self, attempts: int, dice: float) -> float:
        """Give the wait after attempt number `attempts` (1 is the first); `dice` is uniform in [0, 1)."""
        doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
        delay = min(self.first_seconds * self.factor**doublings, self.max_seconds)
        return delay * (1.0 + self.jitter * (2.0 * dice - 1.0))

    def next_attempt_at(self, attempts: int, now: float, expires_at: float, dice: float) -> float | None:
        """Give the instant of the next attempt, None when the delivery expires before any further one is of use.

        The last attempt is made at the expiry itself, so that a site that comes back in time is not missed.
        """
        if now >= expires_at:
            return None
        return min(now + self.delay_seconds(attempts, dice), expires_at)
