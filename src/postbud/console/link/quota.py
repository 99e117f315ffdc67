"""Leases of an account's month: blocks of recipients that a worker may accept without asking again.

Invariant: what is granted in a month is never more than the account's allowance, whoever asks at once: the month's row is
counted up by one statement. A lease that was given is given again, not anew, when its id comes again.
"""

from datetime import UTC, datetime

from django.db import connection

from postbud.console.fields import to_micros
from postbud.console.transaction import write
from postbud.model.link import Lease, LeaseRequest

MOST_AT_ONCE = 1_000_000
_NO_LIMIT = 1 << 62

_GIVEN = "SELECT granted, month FROM link_quotalease WHERE id = %s AND account = %s"
_STANDING = "SELECT used FROM link_quotawindow WHERE account = %s AND month = %s"
_FIRST = """
INSERT INTO link_quotawindow (account, month, used, granted) VALUES (%s, %s, 0, 0) ON CONFLICT (account, month) DO NOTHING
"""
_TAKE = """
UPDATE link_quotawindow
SET granted = CASE WHEN used + %(wanted)s <= %(allowance)s THEN %(wanted)s
                   WHEN used < %(allowance)s THEN %(allowance)s - used ELSE 0 END,
    used = CASE WHEN used + %(wanted)s <= %(allowance)s THEN used + %(wanted)s
                WHEN used < %(allowance)s THEN %(allowance)s ELSE used END
WHERE account = %(account)s AND month = %(month)s
RETURNING granted, used
"""
_NOTE = """
INSERT INTO link_quotalease (id, account, month, node, spool, granted, at) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (id) DO NOTHING
"""


def lease(request: LeaseRequest, allowance: int | None, now: datetime) -> Lease:
    """Give as much of what is wanted as the account's month has left. The same id again gives the same lease."""
    month, ends_at = month_of(now)
    with write(), connection.cursor() as cursor:
        cursor.execute(_FIRST, (request.account, month))
        cursor.execute(_TAKE, {"wanted": 0, "allowance": _NO_LIMIT, "account": request.account, "month": month})
        used = int(cursor.fetchone()[1])  # its row is locked now: the same request at another connection waits here
        cursor.execute(_GIVEN, (request.id, request.account))
        given = cursor.fetchone()
        if given is not None:
            granted = int(given[0]) if given[1] == month else 0
            return Lease(granted=granted, window=month, ends_at=ends_at, used=used, allowance=allowance)
        limit = _NO_LIMIT if allowance is None else allowance
        wanted: dict[str, str | int] = {
            "wanted": request.wanted,
            "allowance": limit,
            "account": request.account,
            "month": month,
        }
        cursor.execute(_TAKE, wanted)
        granted, used = (int(number) for number in cursor.fetchone())
        cursor.execute(_NOTE, (request.id, request.account, month, request.node, request.spool, granted, to_micros(now)))
    return Lease(granted=granted, window=month, ends_at=ends_at, used=used, allowance=allowance)


def used_of(account: str, now: datetime) -> int:
    """Give how much of its month an account has leased."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, (account, month_of(now)[0]))
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def month_of(now: datetime) -> tuple[str, datetime]:
    """Give the calendar month in UTC, such as 2026-11, and when it ends."""
    utc = now.astimezone(UTC)
    ends_at = datetime(utc.year + utc.month // 12, utc.month % 12 + 1, 1, tzinfo=UTC)
    return f"{utc.year:04d}-{utc.month:02d}", ends_at
