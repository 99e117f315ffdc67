"""Fair order among accounts inside a lane, transactional mail before marketing without starving it.

Deficit round robin (Shreedhar and Varghese 1996) in its form with surplus: an account whose credit is used up goes to the end
of the ring and gets another quantum, so the cost of an item need not be known before it is served. Each class has its own
ring; when both wait, one of `TURNS` services is marketing's. Every operation is O(1), amortised.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

QUANTUM = 8 * 1024  # octets that an account may send before others of its class have their turn: a small message or two
MAX_COST = 64 * QUANTUM  # what one item counts at most: a huge one costs some rounds, not thousands
TURNS = 8  # when both classes wait, transactional has all but one of so many services

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Share(Generic[K]):
    credit: int
    items: deque[K] = field(default_factory=deque)


class FairQueue(Generic[K]):
    """Items by account and class. Costs are octets; whoever pops says what the item cost."""

    def __init__(self) -> None:
        self._transactional: OrderedDict[str, _Share[K]] = OrderedDict()
        self._marketing: OrderedDict[str, _Share[K]] = OrderedDict()
        self._length = 0
        self._turn = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[K]:
        """Give what waits, ring by ring, in no order of service."""
        for ring in (self._transactional, self._marketing):
            for share in ring.values():
                yield from share.items

    def waits(self, account: str) -> bool:
        """Whether something of an account waits."""
        return account in self._transactional or account in self._marketing

    def push(self, account: str, item: K, *, marketing: bool = False, first: bool = False) -> None:
        """Queue an item behind its account's others; `first`: before them, since it was served and came back."""
        ring = self._marketing if marketing else self._transactional
        share = ring.get(account)
        if share is None:
            share = ring[account] = _Share(QUANTUM)
        if first:
            share.items.appendleft(item)
        else:
            share.items.append(item)
        self._length += 1

    def pop(self, cost: Callable[[K], int]) -> K | None:
        """Take the next item and charge its account; None when nothing waits."""
        ring = self._next_ring()
        if not ring:
            return None
        while True:
            account, share = next(iter(ring.items()))
            if share.credit > 0:
                break
            share.credit += QUANTUM
            ring.move_to_end(account)
        item = share.items.popleft()
        share.credit -= min(max(cost(item), 1), MAX_COST)
        if not share.items:
            del ring[account]
        self._length -= 1
        return item

    def remove(self, account: str) -> list[K]:
        """Take everything of one account away; give it in its order."""
        found: list[K] = []
        for ring in (self._transactional, self._marketing):
            share = ring.pop(account, None)
            if share is not None:
                found.extend(share.items)
        self._length -= len(found)
        return found

    def clear(self) -> list[K]:
        """Take everything away; give it ring by ring."""
        found = list(self)
        self._transactional.clear()
        self._marketing.clear()
        self._length = 0
        return found

    def _next_ring(self) -> OrderedDict[str, _Share[K]]:
        if self._transactional and self._marketing:
            self._turn = (self._turn + 1) % TURNS
            return self._marketing if self._turn == 0 else self._transactional
        return self._transactional or self._marketing
