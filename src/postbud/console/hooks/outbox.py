"""Put what happened into the outbox, in the transaction that records it.

Owns which endpoint is told of which event. Costs one look-up a batch; nothing more for accounts without endpoints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.backends.utils import CursorWrapper

from postbud.console.fields import to_micros
from postbud.console.hooks.payload import TYPES, body_of
from postbud.model.event import Event

_ENDPOINTS = """
SELECT id, account, server, kinds FROM hooks_endpoint WHERE status <> 'paused' AND account IN ({accounts})
"""
_PUT = """
INSERT INTO hooks_hook
    (account, endpoint, event, message, kind, body, created_at, state, attempts, next_at, error)
VALUES (%s, %s, %s, %s, %s, %s, %s, 'waiting', 0, %s, '') ON CONFLICT (endpoint, event) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class _Listener:
    id: str
    server: str
    kinds: frozenset[str]

    def wants(self, event: Event, kind: str) -> bool:
        return (not self.kinds or kind in self.kinds) and self.server in ("", event.server)


def tell(cursor: CursorWrapper, events: Sequence[Event], now: int) -> int:
    """Write hooks for a batch of events; give how many. `now` is in microseconds since 1970. An event is told once."""
    listeners = _listeners(cursor, {event.account for event in events if event.account})
    rows: list[tuple[Any, ...]] = []
    for event in events:
        kind = TYPES.get(event.kind, "")
        wanting = [one.id for one in listeners.get(event.account, ()) if kind and one.wants(event, kind)]
        if wanting:
            body = body_of(event)
            at = to_micros(event.at)
            rows.extend((event.account, one, event.id, event.message, kind, body, at, now) for one in wanting)
    if rows:
        cursor.executemany(_PUT, rows)
    return len(rows)


def _listeners(cursor: CursorWrapper, accounts: set[str]) -> dict[str, list[_Listener]]:
    found: dict[str, list[_Listener]] = {}
    if not accounts:
        return found
    cursor.execute(_ENDPOINTS.format(accounts=", ".join(["%s"] * len(accounts))), sorted(accounts))
    for endpoint, account, server, kinds in cursor.fetchall():
        wanted = json.loads(kinds) if isinstance(kinds, str) else kinds
        found.setdefault(account, []).append(_Listener(endpoint, server, frozenset(wanted)))
    return found
