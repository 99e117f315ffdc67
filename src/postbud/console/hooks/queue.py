"""The outbox as the sender sees it: what is due, and what became of it.

Owns the statements. One sender runs at a time (a lease of jobs), so a row that is being sent is known in its memory only; after
a crash it is due again: a webhook is told at least once, with the same `webhook-id`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from postbud.console.fields import from_micros, to_micros
from postbud.console.hooks.secrets import open_secret
from postbud.console.transaction import write
from postbud.model.sealed import SealError

_MOST = 50

# all accounts: the sender serves every one; what it reads stays with its row
_ENDPOINTS_DUE = """
SELECT e.id, e.account, e.url, e.sealed_secret, e.sealed_former, e.former_until, e.failing_since FROM hooks_endpoint e
WHERE e.status = 'active'
    AND EXISTS (SELECT 1 FROM hooks_hook h WHERE h.endpoint = e.id AND h.state = 'waiting' AND h.next_at <= %s)
"""
_DUE = """
SELECT h.id, h.event, h.body, h.attempts FROM hooks_hook h
WHERE h.account = %s AND h.endpoint = %s AND h.state = 'waiting' AND h.next_at <= %s
    AND (h.message = '' OR NOT EXISTS (
        SELECT 1 FROM hooks_hook b
        WHERE b.endpoint = h.endpoint AND b.message = h.message AND b.state = 'waiting' AND b.id < h.id))
ORDER BY h.next_at, h.id LIMIT %s
"""
_ATTEMPT = """
INSERT INTO hooks_attempt (account, hook, at, status, milliseconds, error, answer) VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
_FINISH = """
UPDATE hooks_hook SET state = %s, attempts = attempts + 1, status = %s, error = %s, next_at = %s, finished_at = %s
WHERE account = %s AND id = %s AND state = 'waiting'
"""
_SUCCEEDED = "UPDATE hooks_endpoint SET failing_since = NULL, last_success_at = %s WHERE account = %s AND id = %s"
_FAILED = """
UPDATE hooks_endpoint SET failing_since = coalesce(failing_since, %s), last_failure_at = %s,
    status = CASE WHEN %s AND status = 'active' THEN 'failing' ELSE status END
WHERE account = %s AND id = %s
"""


@dataclass(frozen=True, slots=True)
class Due:
    """One post that is to be made now. `secrets`: the present one first."""

    hook: int
    account: str
    endpoint: str
    url: str
    secrets: tuple[str, ...]
    event: str
    body: bytes
    attempts: int
    failing_since: datetime | None

    def failing_for(self, now: datetime) -> timedelta:
        """Tell for how long the endpoint took nothing."""
        return now - self.failing_since if self.failing_since is not None else timedelta()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one post."""

    due: Due
    at: datetime
    milliseconds: int
    status: int | None
    error: str
    answer: str
    delivered: bool
    next_at: datetime | None
    pause: bool


def due(now: datetime, places: Callable[[str], int], busy: Sequence[int]) -> list[Due]:
    """Give posts that are due, for each endpoint as many as it has places, without those that are under way."""
    found: list[Due] = []
    with connection.cursor() as cursor:
        cursor.execute(_ENDPOINTS_DUE, (to_micros(now),))
        for row in cursor.fetchall():
            free = places(row[0])
            if free <= 0 or len(found) >= _MOST:
                continue
            cursor.execute(_DUE, (row[1], row[0], to_micros(now), free + len(busy)))
            mine = [hook for hook in cursor.fetchall() if hook[0] not in busy][:free]
            found.extend(_read(row, mine, now))
    return found[:_MOST]


def _read(row: tuple[Any, ...], hooks: list[tuple[Any, ...]], now: datetime) -> list[Due]:
    endpoint, account, url, sealed, former, former_until, failing_since = row
    secrets = []
    try:
        secrets.append(open_secret(endpoint, bytes(sealed)))
        if former is not None and former_until is not None and former_until > to_micros(now):
            secrets.append(open_secret(f"{endpoint}/former", bytes(former)))
    except SealError:
        return []  # another installation's key: its owner makes a new secret; what waits stays
    since = from_micros(failing_since) if failing_since is not None else None
    return [
        Due(hook, account, endpoint, url, tuple(secrets), event, bytes(body), attempts, since)
        for hook, event, body, attempts in hooks
    ]


def record(result: Result) -> None:
    """Record an attempt and what follows from it, in one transaction."""
    due, at = result.due, to_micros(result.at)
    state = "delivered" if result.delivered else "waiting" if result.next_at is not None else "expired"
    next_at = to_micros(result.next_at) if result.next_at is not None else None
    with write(), connection.cursor() as cursor:
        cursor.execute(_ATTEMPT, (due.account, due.hook, at, result.status, result.milliseconds, result.error, result.answer))
        finished = None if state == "waiting" else at
        cursor.execute(_FINISH, (state, result.status, result.error, next_at, finished, due.account, due.hook))
        if result.delivered:
            cursor.execute(_SUCCEEDED, (at, due.account, due.endpoint))
        else:
            cursor.execute(_FAILED, (at, at, result.pause, due.account, due.endpoint))
