"""Counting a batch of events into roll-ups: pure, one increment an event, spread over the dimensions at the end.

A total and each value of one dimension, for the account and (dimensions `account`, `domain`, `site`, `source`, `class`) over
all accounts. `class` is that of a failure, so it counts nothing else. An outcome counts in the bucket when it happened and in
the bucket of its acceptance (`of_…`). Latencies are counted in bins of a quarter of an octave, so that percentiles over any
range are sums of bins.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from postbud.console.mail.models import WHOLE

BUCKET_MICROS = 15 * 60 * 1_000_000
_BINS_AN_OCTAVE = 4
_LAST_BIN = 127
COUNTS = (
    "messages",
    "octets",
    "accepted",
    "delivered",
    "captured",
    "deferred",
    "bounced",
    "expired",
    "cancelled",
    "suppressed",
    "held",
    "returned",
    "of_delivered",
    "of_captured",
    "of_bounced",
    "of_expired",
    "of_cancelled",
    "of_suppressed",
)
_PLACE = {name: place for place, name in enumerate(COUNTS)}
_ACCOUNT_DIMENSIONS = ("server", "credential", "domain", "site", "source", "class")
_WHOLE_DIMENSIONS = frozenset({"domain", "site", "source", "class"})

Values = tuple[str, str, str, str, str, str, str]  # account, then the values of _ACCOUNT_DIMENSIONS
Key = tuple[str, str, int, str]  # account, dimension, bucket, key: a roll-up's primary key


def bucket_of(micros: int) -> int:
    """Give the start of the 15 minutes that an instant lies in."""
    return micros - micros % BUCKET_MICROS


def latency_bin(milliseconds: int) -> int:
    """Give the bin of a latency: bin n holds from 2^(n/4) - 1 to below 2^((n+1)/4) - 1 milliseconds."""
    return min(int(math.log2(max(milliseconds, 0) + 1) * _BINS_AN_OCTAVE), _LAST_BIN)


def latency_at_most(bin_number: int) -> float:
    """Give the upper edge of a bin in milliseconds."""
    return float(2 ** ((bin_number + 1) / _BINS_AN_OCTAVE)) - 1


def percentile(counts: Iterable[tuple[int, int]], share: float) -> float | None:
    """Give the latency in milliseconds that a share (0 to 1) of deliveries does not exceed; None of no deliveries.

    `counts` are (bin, count); the true value is at most 19 % lower.
    """
    ordered = sorted(counts)
    wanted = share * sum(count for _, count in ordered)
    reached = 0
    for bin_number, count in ordered:
        reached += count
        if count and reached >= wanted:
            return latency_at_most(bin_number)
    return None


@dataclass(slots=True)
class Tally:
    """What a batch adds to the roll-ups."""

    counts: Counter[tuple[Values, int, str]] = field(default_factory=Counter)
    latencies: Counter[tuple[Values, int, int]] = field(default_factory=Counter)

    def rollups(self) -> list[tuple[str | int, ...]]:
        """Give the rows to add, a number for each of `COUNTS`; in the order of keys, so that no two batches dead-lock."""
        rows: dict[Key, list[int]] = {}
        for (values, bucket, name), count in self.counts.items():
            place = _PLACE[name]
            for key in _keys(values, bucket):
                row = rows.get(key)
                if row is None:
                    row = rows[key] = [0] * len(COUNTS)
                row[place] += count
        return [(*key, *rows[key]) for key in sorted(rows)]

    def bins(self) -> list[tuple[str | int, ...]]:
        """Give the latency rows to add, in the order of keys."""
        rows: Counter[tuple[str, str, int, str, int]] = Counter()
        for (values, bucket, bin_number), count in self.latencies.items():
            for key in _keys(values, bucket):
                rows[*key, bin_number] += count
        return [(*key, rows[key]) for key in sorted(rows)]


def _keys(values: Values, bucket: int) -> list[Key]:
    account = values[0]
    if not account:  # nobody's: mail to our own mailboxes
        return []
    keys: list[Key] = [(account, "", bucket, ""), (WHOLE, "", bucket, ""), (WHOLE, "account", bucket, account)]
    for dimension, value in zip(_ACCOUNT_DIMENSIONS, values[1:], strict=True):
        if value:
            keys.append((account, dimension, bucket, value))
            if dimension in _WHOLE_DIMENSIONS:
                keys.append((WHOLE, dimension, bucket, value))
    return keys
