"""Shares of a bounded set: how much one of many may hold of it, so that the others always find room.

Dynamic thresholds (Choudhury and Hahne 1998, for the buffer of a switch): nobody may hold more than `alpha` times what is free.
With a half, one party alone gets a third of the set, n parties that want everything get limit / (n + 2) each, and twice that
stays free for whoever comes next. Nothing is configured and nothing is reserved.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

ALPHA = 0.5
FLOOR = 4  # so many are always let in, as long as there is any room

K = TypeVar("K", bound=Hashable)


class Shares(Generic[K]):
    """Counts what each party holds of `limit` places."""

    def __init__(self, limit: int, alpha: float = ALPHA) -> None:
        self._limit = limit
        self._alpha = alpha
        self._held: Counter[K] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """How many places are taken."""
        return self._total

    def held(self, party: K) -> int:
        """Give how many places a party holds."""
        return self._held[party]

    def has_room(self, party: K, times: float = 1.0) -> bool:
        """Whether a party may take one more place; `times` its share for what should find room beside the party's others."""
        free = self._limit - self._total
        return free > 0 and self._held[party] < max(FLOOR, times * self._alpha * free)

    def has_drained(self, party: K) -> bool:
        """Whether a party that was full has room for a good part of its share again, so that a refill is worth a look."""
        free = self._limit - self._total
        return free > 0 and self._held[party] <= max(FLOOR, self._alpha * free) / 2

    def take(self, party: K) -> None:
        """Take a place; the caller asked `has_room` or has a reason not to."""
        self._held[party] += 1
        self._total += 1

    def give_back(self, party: K) -> None:
        """Give a place back.

        Raises:
            ValueError: The party holds none.
        """
        if self._held[party] <= 0:
            raise ValueError(f"{party!r} holds nothing")
        self._held[party] -= 1
        self._total -= 1
        if not self._held[party]:
            del self._held[party]
