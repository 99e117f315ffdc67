"""Fold a batch of events into the rows that it changes. Pure: what the rows become is decided by `statements`' conditions.

Several events of one delivery in a batch become one row. Knows no database and no secrets: hashing is a function it is given.
Invariant: a final state is never left, and an older event never undoes a younger one, whatever order they come in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from postbud.console.fields import to_micros
from postbud.console.mail.models import HOLDS, WAITING, DeliveryState
from postbud.console.mail.tally import Tally, Values, bucket_of, latency_bin
from postbud.model.event import EventKind
from postbud.model.link import NumberedEvent

_MAX_KEY = 64
_MAX_TEXT = 2_000  # characters; relays bound what they send long before
_MAX_REPLY_CODE = 999
_NO_SECONDS = 0.0  # msgspec leaves out a default float only if it is the very same object
_STATES = {
    EventKind.DEFERRED: DeliveryState.DEFERRED.value,
    EventKind.DELIVERED: DeliveryState.DELIVERED.value,
    EventKind.CAPTURED: DeliveryState.CAPTURED.value,
    EventKind.BOUNCED: DeliveryState.BOUNCED.value,
    EventKind.EXPIRED: DeliveryState.EXPIRED.value,
    EventKind.CANCELLED: DeliveryState.CANCELLED.value,
    EventKind.SUPPRESSED: DeliveryState.SUPPRESSED.value,
}
_HOLDS = frozenset({EventKind.HELD, EventKind.RELEASED, EventKind.QUARANTINED})
_WAITING = frozenset(state.value for state in WAITING)
_COHORTS = {state: f"of_{state}" for state in _STATES.values()}
_HOLD_BITS = {name: 1 << bit for bit, name in enumerate(HOLDS)}
_UNKNOWN_HOLD = "operator"  # a holder of a newer relay

_MAX_REASON = 300


class CommandAnswer(NamedTuple):
    """What workers answered to one command: how many answered, what they changed, when, what was made, why nothing was."""

    answers: int = 0
    changed: int = 0
    at: int = 0
    made: str = ""
    said: str = ""

    def and_also(self, event: NumberedEvent, at: int) -> "CommandAnswer":
        """Give the answer with one more worker's."""
        made, said = event.message[:_MAX_KEY], event.reason[:_MAX_REASON]
        return CommandAnswer(self.answers + 1, self.changed + event.changed, at, made or self.made, said or self.said)


NOT_ANSWERED = CommandAnswer()

MailboxHash = Callable[[str, str], int]  # account, mailbox → signed 64 bits


class EventData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event row keeps beside its columns: the fields of `model.event.Event` that its message and delivery lack."""

    site: str = ""
    source: str = ""
    pool: str = ""
    host: str = ""
    address: str = ""
    tls: str = ""
    attempt: int = 0
    reply: str = ""
    enhanced: str = ""
    reason: str = ""
    classified: str = ""
    next_attempt_at: datetime | None = None
    latency_seconds: float = _NO_SECONDS
    possible_duplicate: bool = False
    hold: str = ""
    transcript: str = ""
    template: str = ""
    notify: tuple[str, ...] = ()
    orcpt: tuple[str, ...] = ()
    recipient: str = ""  # of events without a delivery only
    subject: str = ""  # of events without a delivery only
    command: str = ""
    changed: int = 0


@dataclass(slots=True)
class DeliveryChange:
    """A delivery's row as far as this batch knows it, in the order of `statements.DELIVERY_COLUMNS`."""

    account: str
    message: str
    id: str
    message_at: int
    server: str
    credential: str
    mailbox: str
    mailbox_hash: int
    recipient_domain: str
    from_domain: str
    subject: str
    updated_at: int
    state: str = DeliveryState.QUEUED.value
    site: str = ""
    source: str = ""
    host: str = ""
    reply_code: int = 0
    enhanced: str = ""
    reply: str = ""
    reason: str = ""
    classified: str = ""
    tls: str = ""
    attempts: int = 0
    possible_duplicate: bool = False
    latency_ms: int = 0
    next_attempt_at: int | None = None
    accepted: bool = False

    def row(self) -> tuple[str | int | bool | None, ...]:
        """Give the columns."""
        return (
            self.account,
            self.message,
            self.id,
            self.message_at,
            self.server,
            self.credential,
            self.mailbox,
            self.mailbox_hash,
            self.recipient_domain,
            self.from_domain,
            self.subject,
            self.state,
            self.site,
            self.source,
            self.host,
            self.reply_code,
            self.enhanced,
            self.reply,
            self.reason,
            self.classified,
            self.tls,
            self.attempts,
            self.possible_duplicate,
            self.latency_ms,
            self.next_attempt_at,
            self.updated_at,
        )


@dataclass(slots=True)
class Folded:
    """What a batch changes."""

    events: list[tuple[str | int | bytes, ...]] = field(default_factory=list)
    messages: list[tuple[str | int, ...]] = field(default_factory=list)
    deliveries: dict[tuple[str, str, str], DeliveryChange] = field(default_factory=dict)
    holds: dict[tuple[str, str, str], tuple[int, int, int]] = field(default_factory=dict)  # bits to set, bits to clear, at
    returns: dict[tuple[str, str, str], str] = field(default_factory=dict)
    used: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # (account, credential) → at, client
    commands: dict[str, CommandAnswer] = field(default_factory=dict)  # by id
    tally: Tally = field(default_factory=Tally)
    unfit: int = 0


class Folder:
    """Folds events; one for one batch."""

    def __init__(self, mailbox_hash: MailboxHash) -> None:
        """Take the function that hashes a mailbox under its account's key."""
        self._hash = mailbox_hash
        self._encode = msgspec.json.Encoder().encode
        self.folded = Folded()

    def fold(self, events: Iterable[NumberedEvent]) -> Folded:
        """Fold the events of a batch, in their order. What no table can hold is left out and counted."""
        folded = self.folded
        for event in events:
            if _is_unfit(event):
                folded.unfit += 1
                continue
            at = to_micros(event.at)
            self._keep(event, at)
            message_at = to_micros(event.message_at) if event.message_at is not None else at
            kind = event.kind
            if kind in _STATES:
                self._outcome(event, at, message_at)
            elif kind is EventKind.ACCEPTED:
                self._accepted(event, at, message_at)
            elif kind in _HOLDS:
                self._hold(event, at, message_at)
            elif kind is EventKind.DSN_RECEIVED:
                self._returned(event, at)
            elif kind is EventKind.COMMANDED:
                folded.commands[event.command] = folded.commands.get(event.command, NOT_ANSWERED).and_also(event, at)
        return folded

    def _keep(self, event: NumberedEvent, at: int) -> None:
        alone = not event.delivery and event.kind is not EventKind.ACCEPTED
        data = EventData(
            site=event.site,
            source=event.source,
            pool=event.pool,
            host=event.host,
            address=event.address,
            tls=event.tls,
            attempt=event.attempt,
            reply=event.reply,
            enhanced=event.enhanced,
            reason=event.reason,
            classified=event.classified,
            next_attempt_at=event.next_attempt_at,
            latency_seconds=event.latency_seconds or _NO_SECONDS,
            possible_duplicate=event.possible_duplicate,
            hold=event.hold,
            transcript=event.transcript,
            template=event.template,
            notify=event.notify,
            orcpt=event.orcpt,
            recipient=event.recipient if alone else "",
            subject=event.subject if alone else "",
            command=event.command,
            changed=event.changed,
        )
        row = (event.account, event.message, event.id, at, event.kind.value, event.delivery, self._encode(data))
        self.folded.events.append(row)

    def _accepted(self, event: NumberedEvent, at: int, message_at: int) -> None:
        folded = self.folded
        subject = event.subject[:_MAX_TEXT]
        folded.messages.append(
            (
                event.account,
                event.message,
                message_at,
                event.server,
                event.credential,
                event.reverse_path[:_MAX_TEXT],
                event.from_domain[:_MAX_TEXT],
                event.signing_domain[:_MAX_TEXT],
                subject,
                event.message_id[:_MAX_TEXT],
                event.size_octets,
                len(event.recipients),
                event.client[:_MAX_TEXT],
                event.tag[:_MAX_TEXT],
                event.list[:_MAX_TEXT],
                event.campaign[:_MAX_TEXT],
                event.metadata[:_MAX_TEXT],
                event.envid[:_MAX_TEXT],
                self._encode(event.findings).decode(),
            )
        )
        for recipient, delivery in zip(event.recipients, event.deliveries, strict=False):
            change = self._change(event, message_at, delivery, recipient)
            change.accepted = True
            change.subject = subject
        if event.credential:
            used = folded.used.get((event.account, event.credential))
            if used is None or used[0] <= at:
                folded.used[event.account, event.credential] = (at, event.client[:_MAX_TEXT])
        counts = folded.tally.counts
        values, bucket = _values(event), bucket_of(at)
        counts[values, bucket, "messages"] += 1
        counts[values, bucket, "octets"] += event.size_octets
        counts[values, bucket, "accepted"] += len(event.recipients)

    def _outcome(self, event: NumberedEvent, at: int, message_at: int) -> None:
        state = _STATES[event.kind]
        values, bucket = _values(event), bucket_of(at)
        tally = self.folded.tally
        tally.counts[values, bucket, state] += 1
        latency_ms = int(event.latency_seconds * 1000)
        if state not in _WAITING:
            tally.counts[values, bucket_of(message_at), _COHORTS[state]] += 1
            if state == DeliveryState.DELIVERED.value:
                tally.latencies[values, bucket, latency_bin(latency_ms)] += 1
        if not event.delivery:
            return
        change = self._change(event, message_at, event.delivery, event.recipient)
        if change.state not in _WAITING or change.updated_at > at:
            return
        change.updated_at = at
        change.state = state
        change.site = event.site[:_MAX_TEXT]
        change.source = event.source[:_MAX_TEXT]
        change.host = event.host[:_MAX_TEXT]
        change.reply_code = _reply_code(event.reply)
        change.enhanced = event.enhanced[:_MAX_KEY]
        change.reply = event.reply[:_MAX_TEXT]
        change.reason = event.reason[:_MAX_TEXT]
        change.classified = event.classified[:_MAX_KEY]
        change.tls = event.tls[:_MAX_TEXT]
        change.attempts = max(change.attempts, event.attempt)
        change.possible_duplicate = change.possible_duplicate or event.possible_duplicate
        change.latency_ms = latency_ms
        change.next_attempt_at = to_micros(event.next_attempt_at) if event.next_attempt_at else None

    def _hold(self, event: NumberedEvent, at: int, message_at: int) -> None:
        hold = "quarantine" if event.kind is EventKind.QUARANTINED else event.hold
        bit = _HOLD_BITS.get(hold, _HOLD_BITS[_UNKNOWN_HOLD])
        if event.kind is not EventKind.RELEASED:
            self.folded.tally.counts[_values(event), bucket_of(at), "held"] += 1
        if not event.delivery:
            return
        self._change(event, message_at, event.delivery, event.recipient)
        key = (event.account, event.message, event.delivery)
        put, cleared, _ = self.folded.holds.get(key, (0, 0, 0))
        if event.kind is EventKind.RELEASED:
            self.folded.holds[key] = (put & ~bit, cleared | bit, at)
        else:
            self.folded.holds[key] = (put | bit, cleared & ~bit, at)

    def _returned(self, event: NumberedEvent, at: int) -> None:
        self.folded.tally.counts[_values(event), bucket_of(at), "returned"] += 1
        if event.delivery:  # it had been delivered: what is not known is not made up
            self.folded.returns[event.account, event.message, event.delivery] = event.reason[:_MAX_KEY]

    def _change(self, event: NumberedEvent, message_at: int, delivery: str, recipient: str) -> DeliveryChange:
        """Give the row of a delivery, made of what the event says when the batch has not met it."""
        key = (event.account, event.message, delivery)
        change = self.folded.deliveries.get(key)
        if change is None:
            change = self.folded.deliveries[key] = DeliveryChange(
                account=event.account,
                message=event.message,
                id=delivery,
                message_at=message_at,
                server=event.server,
                credential=event.credential,
                mailbox=recipient[:_MAX_TEXT],
                mailbox_hash=self._hash(event.account, recipient) if recipient else 0,
                recipient_domain=recipient.rpartition("@")[2].lower()[:_MAX_TEXT],
                from_domain=event.from_domain[:_MAX_TEXT],
                subject=event.subject[:_MAX_TEXT],
                updated_at=message_at,
            )
        return change


def _is_unfit(event: NumberedEvent) -> bool:
    if (
        not event.id
        or len(event.id) > _MAX_KEY
        or len(event.account) > _MAX_KEY
        or len(event.server) > _MAX_KEY
        or len(event.credential) > _MAX_KEY
        or len(event.message) > _MAX_KEY
        or len(event.delivery) > _MAX_KEY
        or len(event.command) > _MAX_KEY
    ):
        return True
    return bool(event.deliveries) and max(map(len, event.deliveries)) > _MAX_KEY


def _values(event: NumberedEvent) -> Values:
    return (
        event.account, event.server, event.credential, event.from_domain, event.site, event.source, event.classified[:_MAX_KEY],
    )  # fmt: skip


def _reply_code(reply: str) -> int:
    code = reply[:3]
    return int(code) if code.isascii() and code.isdigit() and int(code) <= _MAX_REPLY_CODE else 0
