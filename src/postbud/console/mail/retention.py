"""Forgets what a plan keeps no longer: the message log after `log_days`, contents after `content_days`.

Owns what is old enough and in which order it goes, not the tables' meaning. Roll-ups stay: they name nobody. Invariants: a
message with a delivery that still waits stays, however old; a message goes with its events and deliveries in one transaction;
no transaction is longer than one batch, so ingest never waits long behind it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from postbud.console.accounts.models import Account
from postbud.console.configuration import current
from postbud.console.link.content import ContentStore
from postbud.console.link.models import Content
from postbud.console.mail.models import WAITING, DeliveryRow, EventRow, MessageRow, message_floor
from postbud.console.transaction import write

LEFTOVER_AGE = timedelta(hours=24)
_AT_ONCE = 200  # messages
_CONTENTS_AT_ONCE = 100


def prune_log(now: datetime) -> int:
    """Forget messages older than their account's `log_days`; give how many. A batch of each account: call again."""
    forgotten = 0
    for account, days, _ in _accounts():
        floor = message_floor(now - timedelta(days=days))
        forgotten += _forget(account, floor)
    return forgotten


def prune_content(now: datetime) -> int:
    """Forget contents older than their account's `content_days`; give how many. A batch of each account: call again."""
    store = _store()
    forgotten = 0
    for account, _, days in _accounts():
        old = Content.objects.filter(account=account, at__lt=now - timedelta(days=days))
        messages = list(old.order_by("message").values_list("message", flat=True)[:_CONTENTS_AT_ONCE])
        if messages:
            forgotten += store.delete(account, messages)
    return forgotten


def clear_leftovers(now: datetime) -> int:
    """Delete files of contents that no row names; give how many."""
    return _store().clear_leftovers(now, LEFTOVER_AGE)


def _forget(account: str, floor: str) -> int:
    waiting = DeliveryRow.objects.filter(account=account, message__lt=floor, state__in=WAITING).values("message")
    old = EventRow.objects.filter(account=account, message__lt=floor).exclude(message__in=waiting)
    messages = list(old.order_by("message").values_list("message", flat=True).distinct()[:_AT_ONCE])
    if not messages:
        return 0
    with write():
        for table in (EventRow, DeliveryRow):
            table.objects.filter(account=account, message__in=messages).delete()
        MessageRow.objects.filter(account=account, id__in=messages).delete()
    return len(messages)


def _accounts() -> Iterator[tuple[str, int, int]]:
    yield from Account.objects.order_by("id").values_list("id", "plan__log_days", "plan__content_days")


def _store() -> ContentStore:
    return ContentStore(current().folder / "content")
