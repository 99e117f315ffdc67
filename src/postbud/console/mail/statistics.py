"""Statistics of an account over a time: sums, a course in slots of the viewer's time zone, a dimension's values, latencies.

Reads the roll-ups only, buckets and keys, never messages. Slots begin where the viewer's clock says so: every zone's offset is
a multiple of 15 minutes today, so a bucket lies in one slot. Invariant: the slots of a course add up to its total.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import Any

from django.db import connection

from postbud.console.fields import from_micros, to_micros
from postbud.console.mail.tally import BUCKET_MICROS, percentile

DIMENSIONS = ("server", "credential", "domain", "site", "source", "class")
_HOUR_MICROS = 3600 * 1_000_000
_MOST_VALUES = 100  # of a dimension, the largest first


class Grain(Enum):
    """How long a slot is."""

    QUARTER = "quarter"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Counts:
    """Deliveries. The first five: what became, by now, of those accepted in the time; the rest: what happened in it."""

    accepted: int = 0
    delivered: int = 0
    captured: int = 0
    bounced: int = 0
    expired: int = 0
    cancelled: int = 0
    suppressed: int = 0
    deferrals: int = 0
    holds: int = 0
    returned: int = 0
    messages: int = 0
    octets: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + another for one, another in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        """Give the numbers in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def failed(self) -> int:
        """What was given up: bounced or expired."""
        return self.bounced + self.expired

    @property
    def waiting(self) -> int:
        """What nothing has become of yet."""
        ended = self.delivered + self.captured + self.failed + self.cancelled + self.suppressed
        return max(self.accepted - ended, 0)

    def share(self, part: int) -> float | None:
        """Give a part of what was accepted; None of nothing."""
        return min(part / self.accepted, 1.0) if self.accepted else None


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds from acceptance to delivery that a share of deliveries did not exceed; None of no deliveries."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """A time of the statistics, `end` exclusive, in whole buckets; `edges` are the beginnings of its slots."""

    start: datetime
    end: datetime
    grain: Grain
    edges: tuple[datetime, ...]

    @property
    def before(self) -> tuple[datetime, datetime]:
        """The time of the same length right before."""
        return self.start - (self.end - self.start), self.start


def span(start: datetime, end: datetime, grain: Grain, zone: tzinfo) -> Span:
    """Cut a time into slots that begin where the clock of a zone says so."""
    start, end = _floor(start), _ceiling(end)
    edges = [start]
    while (following := _next_edge(edges[-1], grain, zone)) < end:
        edges.append(following)
    return Span(start, end, grain, tuple(edges))


def total(account: str, start: datetime, end: datetime, dimension: str = "", key: str = "") -> Counts:
    """Sum an account's figures, or those of one value of a dimension."""
    return Counts(*_rows(_TOTAL, (account, dimension, to_micros(start), to_micros(end), key))[0])


def course(account: str, over: Span, dimension: str = "", key: str = "") -> list[Counts]:
    """Give the figures of each slot, zeros where nothing happened."""
    edges = [to_micros(edge) for edge in over.edges]
    step = BUCKET_MICROS if any(edge % _HOUR_MICROS for edge in edges) else _HOUR_MICROS
    found = [Counts() for _ in edges]
    values = (step, account, dimension, to_micros(over.start), to_micros(over.end), key)
    for slot, *counts in _rows(_COURSE, values):
        place = bisect_right(edges, max(slot * step, edges[0])) - 1
        found[place] += Counts(*counts)
    return found


def by_value(account: str, start: datetime, end: datetime, dimension: str) -> list[tuple[str, Counts]]:
    """Give the figures of each value of a dimension, the largest first; a hundred at most."""
    where = (account, dimension, to_micros(start), to_micros(end))
    largest = [key for (key,) in _rows(_LARGEST, (*where, _MOST_VALUES))]
    if not largest:
        return []
    rows = _rows(_OF_VALUES.format(", ".join(["%s"] * len(largest))), (*where, *largest))
    return [(key, Counts(*counts)) for key, *counts in rows]


def latencies(account: str, start: datetime, end: datetime, dimension: str = "", key: str = "") -> Latencies:
    """Give how long deliveries took."""
    bins = [(number, count) for number, count in _rows(_BINS, (account, dimension, to_micros(start), to_micros(end), key))]
    return Latencies(*(percentile(bins, share) for share in (0.5, 0.95, 0.99)))


_COLUMNS = (
    "accepted", "of_delivered", "of_captured", "of_bounced", "of_expired", "of_cancelled", "of_suppressed", "deferred", "held",
    "returned", "messages", "octets",
)  # fmt: skip
_SUMS = ", ".join(f"COALESCE(SUM({column}), 0)" for column in _COLUMNS)
_ACTIVITY = "SUM(accepted + of_delivered + of_captured + of_bounced + of_expired + deferred)"
_WHERE = "WHERE account = %s AND dimension = %s AND bucket_at >= %s AND bucket_at < %s"
_TOTAL = f"SELECT {_SUMS} FROM mail_rollup {_WHERE} AND key = %s"  # noqa: S608 (made of constants, like those below)
_COURSE = f"SELECT bucket_at / %s, {_SUMS} FROM mail_rollup {_WHERE} AND key = %s GROUP BY 1"  # noqa: S608
_LARGEST = f"SELECT key FROM mail_rollup {_WHERE} GROUP BY key ORDER BY {_ACTIVITY} DESC, key LIMIT %s"  # noqa: S608
_OF_VALUES = f"SELECT key, {_SUMS} FROM mail_rollup {_WHERE} AND key IN ({{}}) GROUP BY key ORDER BY {_ACTIVITY} DESC, key"  # noqa: S608
_BINS = f"SELECT bin, SUM(count) FROM mail_latency {_WHERE} AND key = %s GROUP BY bin"  # noqa: S608 (constants, as above)


def _rows(statement: str, values: Sequence[str | int]) -> list[tuple[Any, ...]]:
    """Give the rows; sums of PostgreSQL are decimals."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [tuple(one if isinstance(one, str) else int(one) for one in row) for row in cursor.fetchall()]


def _next_edge(edge: datetime, grain: Grain, zone: tzinfo) -> datetime:
    """Give where the next slot begins, in UTC. A day has 23 to 25 hours where clocks change."""
    if grain is Grain.QUARTER:
        return edge + timedelta(minutes=15)
    if grain is Grain.HOUR:
        return edge + timedelta(hours=1) - timedelta(minutes=edge.astimezone(zone).minute)
    local = edge.astimezone(zone)
    day = local.date() + timedelta(days=1)
    if grain is Grain.MONTH:
        day = (local.date().replace(day=1) + timedelta(days=32)).replace(day=1)
    return _floor(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))


def _floor(at: datetime) -> datetime:
    micros = to_micros(at)
    return from_micros(micros - micros % BUCKET_MICROS)


def _ceiling(at: datetime) -> datetime:
    return from_micros(-(-to_micros(at) // BUCKET_MICROS) * BUCKET_MICROS)


def add(counts: Iterable[Counts]) -> Counts:
    """Add figures up."""
    whole = Counts()
    for one in counts:
        whole += one
    return whole
