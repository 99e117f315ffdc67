"""Ingest: a batch of a spool's events becomes rows, statistics and hooks, in one transaction with the spool's mark.

The mark is the idempotency: numbers up to it are skipped, so a batch may come again, whole or in part. An event that came under
another spool's number before (an adopted spool) is known by its id and changes nothing. Knows nothing of HTTP.
"""

import time
from collections.abc import Sequence

from django.db import connection, transaction

from postbud.console.hooks import outbox
from postbud.console.link.secrets import hash_mailbox
from postbud.console.mail import statements
from postbud.console.mail.fold import Folded, Folder
from postbud.console.mail.uses import note_uses
from postbud.console.transaction import write
from postbud.model.link import EventBatch, NumberedEvent
from postbud.telemetry.logs import Log

_MARK = "SELECT seq FROM link_spoolmark WHERE spool = %s"  # all accounts: a spool holds the mail of many
_OWNER = "SELECT node FROM link_spoolmark WHERE spool = %s"  # all accounts: as above
_FIRST_MARK = "INSERT INTO link_spoolmark (spool, node, seq, at) VALUES (%s, %s, 0, %s) ON CONFLICT (spool) DO NOTHING"
_LOCK_MARK = "UPDATE link_spoolmark SET at = %s WHERE spool = %s RETURNING seq"  # its row is locked until the commit
_SET_MARK = "UPDATE link_spoolmark SET seq = %s, node = %s WHERE spool = %s"
# all accounts: an answer names its command
_ANSWER = """
UPDATE link_command SET answers = answers + %s, changed = changed + %s, answered_at = %s,
made = CASE WHEN %s = '' THEN made ELSE %s END, said = CASE WHEN %s = '' THEN said ELSE %s END WHERE id = %s
"""
# all accounts: an id is of one event, and each is asked for with its account
_KNOWN = "SELECT 1 FROM mail_event WHERE account = %s AND message = %s AND id = %s"


class _SeenError(Exception):
    """Some of the events are in the log already."""


def mark_of(spool: int) -> int:
    """Give the number up to which a spool's events are in the database; 0 of a spool that is not known."""
    with connection.cursor() as cursor:
        cursor.execute(_MARK, (spool,))
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def may_ship(spool: int, node: str) -> bool:
    """Tell whether a spool is a node's, as far as it is known: the node that ships it first keeps it."""
    with connection.cursor() as cursor:
        cursor.execute(_OWNER, (spool,))
        found = cursor.fetchone()
    return found is None or found[0] == node


def ingest(batch: EventBatch, log: Log | None = None) -> int:
    """Put a batch into the log; give the spool's mark afterwards. All of it or nothing; again is harmless."""
    mark = mark_of(batch.spool)
    fresh = _after(batch.events, mark)
    if not fresh:
        return mark
    folded = _fold(fresh)
    now = time.time_ns() // 1000
    with write():
        with connection.cursor() as cursor:
            cursor.execute(_FIRST_MARK, (batch.spool, batch.node, now))
            cursor.execute(_LOCK_MARK, (now, batch.spool))
            locked = int(cursor.fetchone()[0])
        if locked != mark:  # another request of the same spool was quicker
            fresh = _after(fresh, locked)
            folded = _fold(fresh)
        try:
            with transaction.atomic():
                _apply(folded, fresh, now)
        except _SeenError:
            fresh = _unknown(fresh)
            folded = _fold(fresh)
            _apply(folded, fresh, now)
        mark = max((locked, *(event.seq for event in batch.events)))
        with connection.cursor() as cursor:
            cursor.execute(_SET_MARK, (mark, batch.node, batch.spool))
    if folded.unfit and log is not None:
        log.warning("events_unfit", spool=batch.spool, up_to=mark, events=folded.unfit)
    return mark


def _after(events: Sequence[NumberedEvent], mark: int) -> list[NumberedEvent]:
    return [event for event in events if event.seq > mark]


def _fold(events: Sequence[NumberedEvent]) -> Folded:
    return Folder(hash_mailbox).fold(events)


def _unknown(events: Sequence[NumberedEvent]) -> list[NumberedEvent]:
    """Give the events whose ids are not in the log, each once."""
    fresh: dict[str, NumberedEvent] = {}
    with connection.cursor() as cursor:
        for event in events:
            cursor.execute(_KNOWN, (event.account, event.message, event.id))
            if cursor.fetchone() is None:
                fresh.setdefault(event.id, event)
    return list(fresh.values())


def _apply(folded: Folded, events: Sequence[NumberedEvent], now: int) -> None:
    """Run the statements. Rows that several spools share come last and in one order, so that they are locked shortly.

    Raises:
        _SeenError: An event is in the log already; nothing may be kept of this.
    """
    if statements.EVENTS.run(folded.events) < len(folded.events):
        raise _SeenError
    statements.MESSAGES.run(folded.messages)
    changes = [folded.deliveries[key] for key in sorted(folded.deliveries)]
    if statements.DELIVERIES.run([change.row() for change in changes]) < len(changes):
        late = [change for change in changes if change.accepted]
        rows = [(change.account, change.message, change.id, change.subject, change.mailbox) for change in late]
        statements.LATE_ACCEPTANCES.run(rows)
    statements.HOLDS.run([(*key, *bits) for key, bits in sorted(folded.holds.items())])
    statements.RETURNS.run([(*key, action) for key, action in sorted(folded.returns.items())])
    note_uses(folded.used)
    with connection.cursor() as cursor:
        for command, told in sorted(folded.commands.items()):
            made, said = told.made, told.said
            cursor.execute(_ANSWER, (told.answers, told.changed, told.at, made, made, said, said, command))
        outbox.tell(cursor, events, now)
    statements.ROLLUPS.run(folded.tally.rollups())
    statements.LATENCIES.run(folded.tally.bins())
