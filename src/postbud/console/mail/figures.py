"""Figures that pages show at a glance: sums and courses of the roll-ups, and the latest deliveries of an account.

Reads only; every query names the account or, for the operator, several. Knows nothing of pages. Invariant: it reads buckets and
keys, never all messages.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum

from postbud.console.fields import EPOCH, to_micros
from postbud.console.mail.models import DeliveryRow, Rollup

BUCKET = timedelta(minutes=15)
COUNTS = ("accepted", "delivered", "captured", "deferred", "bounced")


@dataclass(frozen=True)
class Figures:
    """Deliveries counted over a time; `bounced` includes those that expired."""

    accepted: int = 0
    delivered: int = 0
    captured: int = 0
    deferred: int = 0
    bounced: int = 0

    @property
    def share_delivered(self) -> float | None:
        """Give which part of what was accepted was delivered; None when nothing was accepted."""
        return min(self.delivered / self.accepted, 1.0) if self.accepted else None


@dataclass(frozen=True)
class Course:
    """Counts per bucket: `times` are seconds since 1970, one for each value."""

    times: list[int]
    delivered: list[int]
    deferred: list[int]
    bounced: list[int]


def bucket_of(at: datetime) -> datetime:
    """Give the beginning of the bucket that an instant is in."""
    return EPOCH + (at - EPOCH) // BUCKET * BUCKET


def total(account: str, since: datetime) -> Figures:
    """Sum an account's figures."""
    return by_key(account, "", since, [""]).get("", Figures())


def by_key(account: str, dimension: str, since: datetime, keys: Iterable[str] | None = None) -> dict[str, Figures]:
    """Sum an account's figures for each value of a dimension."""
    rows = Rollup.objects.filter(account=account, dimension=dimension, bucket_at__gte=bucket_of(since))
    if keys is not None:
        rows = rows.filter(key__in=list(keys))
    sums = rows.values("key").annotate(**{f"n_{name}": Sum(name) for name in (*COUNTS, "expired")})
    return {row["key"]: _figures(row) for row in sums}


def by_account(accounts: Iterable[str], since: datetime) -> dict[str, Figures]:
    """Sum the figures of several accounts, for the operator."""
    rows = Rollup.objects.filter(account__in=list(accounts), dimension="", key="", bucket_at__gte=bucket_of(since))
    sums = rows.values("account").annotate(**{f"n_{name}": Sum(name) for name in (*COUNTS, "expired")})
    return {row["account"]: _figures(row) for row in sums}


def course(account: str, since: datetime, until: datetime) -> Course:
    """Give an account's course over time, with zeros where nothing happened."""
    first = bucket_of(since)
    rows = Rollup.objects.filter(account=account, dimension="", key="", bucket_at__gte=first, bucket_at__lte=until)
    found = {one.bucket_at: one for one in rows}
    buckets = [first + BUCKET * n for n in range((until - first) // BUCKET + 1)]
    at_hand = [found.get(bucket) for bucket in buckets]
    return Course(
        times=[to_micros(bucket) // 1_000_000 for bucket in buckets],
        delivered=[one.delivered + one.captured if one else 0 for one in at_hand],
        deferred=[one.deferred if one else 0 for one in at_hand],
        bounced=[one.bounced + one.expired if one else 0 for one in at_hand],
    )


def latest(account: str, limit: int) -> list[DeliveryRow]:
    """Give an account's latest deliveries, newest first."""
    return list(DeliveryRow.objects.filter(account=account).order_by("-message", "-id")[:limit])


def has_sent(account: str) -> bool:
    """Tell whether an account ever sent anything that the log still knows."""
    return DeliveryRow.objects.filter(account=account).exists()


def _figures(row: Mapping[str, Any]) -> Figures:
    return Figures(
        accepted=row["n_accepted"],
        delivered=row["n_delivered"],
        captured=row["n_captured"],
        deferred=row["n_deferred"],
        bounced=row["n_bounced"] + row["n_expired"],
    )
