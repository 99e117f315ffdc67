"""How much one client may take: connections per address and in total, and failures of AUTH.

Nothing here locks a name: failures count against the address they come from, and against the pair of address and name. So the
owner of a credential always gets in from elsewhere, and devices behind one address do not lock each other out (row F4).
"""

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from postbud.smtpd.settings import Limits

K = TypeVar("K")
V = TypeVar("V")
_MAX_REMEMBERED = 20_000  # of each kind; the oldest is forgotten first


def address_key(address: str) -> str:
    """Give what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address


class ConnectionCount:
    """Connections that are open, in total and by client."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()
        self.open = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for anybody."""
        return self.open >= self._total

    def crowded(self, key: str) -> bool:
        """Tell whether this client has all that one client may have."""
        return self._open[key] >= self._per_address if key in self._open else self._per_address <= 0

    def enter(self, key: str) -> None:
        """Count one more."""
        self.open += 1
        self._open[key] += 1

    def leave(self, key: str) -> None:
        """Count one less."""
        self.open -= 1
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


class AuthThrottle:
    """Remembers failures of AUTH, and who succeeded from where. Times are of one monotonic clock, in seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()  # -> count, end of the window
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.waiting = 0  # sessions whose 535 is being held back

    def refuses(self, key: str, username: str, now: float) -> bool:
        """Tell whether an attempt is not even looked at.

        A pair that succeeded before is judged by its own failures only: a broken printer does not shut out its office.
        """
        if self._count((key, username), now) >= self._limits.auth_failures_per_address_and_name:
            return True
        return (key, username) not in self._known and self._count((key, ""), now) >= self._limits.auth_failures_per_address

    @property
    def busy(self) -> bool:
        """Whether too many failures wait for their reply."""
        return self.waiting >= self._limits.auth_waiting

    def failed(self, key: str, username: str, now: float) -> float:
        """Count a failure; give the seconds by which its reply should be held back."""
        self._add((key, username), now)
        count = self._add((key, ""), now)
        return min(self._limits.auth_delay_seconds * 2.0 ** min(count - 1, 16), self._limits.auth_delay_max_seconds)

    def succeeded(self, key: str, username: str) -> None:
        """Remember a success."""
        self._failures.pop((key, username), None)
        _remember(self._known, (key, username), None)

    def _count(self, pair: tuple[str, str], now: float) -> int:
        count, ends_at = self._failures.get(pair, (0, 0.0))
        return count if now < ends_at else 0

    def _add(self, pair: tuple[str, str], now: float) -> int:
        count = self._count(pair, now)
        ends_at = self._failures[pair][1] if count else now + self._limits.auth_window_seconds
        _remember(self._failures, pair, (count + 1, ends_at))
        return count + 1


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _MAX_REMEMBERED:
        table.popitem(last=False)
