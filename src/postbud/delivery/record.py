"""Stage 6, record: outcomes become new states, events and our own DSNs, all for one commit.

Pure: decides, and the caller commits. Invariant (P3): a delivery leaves with exactly one final state and its event in the
same commit; a DSN that is owed is in that commit too, so no crash can lose it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from postbud.bounce.classify import Class, Classifier
from postbud.model.account import SYSTEM_ACCOUNT
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import EventId
from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome, Peer, Reply
from postbud.shaping.backoff import RetrySchedule

_MAX_TRANSCRIPT = 8192


@dataclass(frozen=True, slots=True)
class Change:
    """What one outcome did to one delivery. `notice` names the DSN that is owed by its action (RFC 3464 s2.3.3); or None."""

    delivery: Delivery
    event: Event
    notice: str | None


class Recorder:
    """Turns outcomes into changes. Holds only how: schedule, classifier, ids, clock, dice."""

    def __init__(
        self,
        schedule: RetrySchedule,
        classifier: Classifier,
        new_event_id: Callable[[], EventId],
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._schedule = schedule
        self._classifier = classifier
        self._new_event_id = new_event_id
        self._clock = clock
        self._dice = dice

    def apply(self, message: Message, delivery: Delivery, outcome: Outcome) -> Change:
        """Move a delivery by the outcome of an attempt."""
        now = self._clock()
        delivery.attempts += 1
        delivery.last_attempt_at = now
        delivery.last_host = outcome.peer.host if outcome.reply is not None else ""
        match outcome:
            case Delivered():
                return self._delivered(message, delivery, outcome, now)
            case Deferred():
                return self._deferred(message, delivery, outcome, now)
            case Bounced():
                delivery.state = State.BOUNCED
                delivery.last_reply = _said(outcome)
                event = self._event(EventKind.BOUNCED, message, delivery, now, outcome)
                return Change(delivery, event, "failed" if owes(message, delivery, "failed") else None)
            case _:
                assert_never(outcome)

    def _delivered(self, message: Message, delivery: Delivery, outcome: Delivered, now: float) -> Change:
        delivery.state = State.DELIVERED
        delivery.last_reply = outcome.reply.text
        event = self._event(EventKind.DELIVERED, message, delivery, now, outcome)
        relayed = delivery.notify.success and not outcome.dsn_relayed and owes(message, delivery, "relayed")
        return Change(delivery, event, "relayed" if relayed else None)

    def _deferred(self, message: Message, delivery: Delivery, outcome: Deferred, now: float) -> Change:
        delivery.last_reply = _said(outcome)
        delivery.unknown_after_dot = delivery.unknown_after_dot or outcome.unknown_after_dot
        due_at = self._schedule.next_attempt_at(delivery.attempts, now, delivery.expires_at, self._dice())
        if due_at is None:
            delivery.state = State.EXPIRED
            event = self._event(EventKind.EXPIRED, message, delivery, now, outcome)
            return Change(delivery, event, "failed" if owes(message, delivery, "failed") else None)
        delivery.due_at = due_at
        late = now - delivery.created_at >= self._schedule.delay_notice_after_seconds
        notice = None
        if late and not delivery.delay_notified and owes(message, delivery, "delayed"):
            notice = "delayed"
            delivery.delay_notified = True
        return Change(delivery, self._event(EventKind.DEFERRED, message, delivery, now, outcome), notice)

    def finish(self, message: Message, delivery: Delivery, state: State, reason: str) -> Change:
        """End a delivery without an attempt: cancelled, expired while held, suppressed."""
        delivery.state = state
        event = self.note(EventKind(state.value), message, delivery, reason)
        failed = state in (State.EXPIRED, State.BOUNCED) and owes(message, delivery, "failed")
        delivery.last_reply = delivery.last_reply or reason
        return Change(delivery, event, "failed" if failed else None)

    def note(self, kind: EventKind, message: Message, delivery: Delivery, reason: str, hold: str = "") -> Event:
        """Make an event that no attempt caused (held, released, cancelled, quarantined)."""
        return self._event(kind, message, delivery, self._clock(), None, reason=reason, hold=hold)

    def _event(
        self,
        kind: EventKind,
        message: Message,
        delivery: Delivery,
        now: float,
        outcome: Outcome | None,
        *,
        reason: str = "",
        hold: str = "",
    ) -> Event:
        reply: Reply | None = outcome.reply if outcome is not None else None
        peer = outcome.peer if outcome is not None else Peer()
        failed = isinstance(outcome, Deferred | Bounced)
        classified = ""
        if isinstance(outcome, Deferred | Bounced):
            found = self._classifier.classify(outcome.reply, outcome.enhanced, outcome.why)
            classified = Class.TEMPORARY.value if isinstance(outcome, Deferred) and found is Class.UNKNOWN else found.value
        waiting = kind is EventKind.DEFERRED
        return Event(
            id=self._new_event_id(),
            kind=kind,
            at=datetime.fromtimestamp(now, UTC),
            account=message.account,
            server=message.server,
            credential=message.credential,
            message=message.id,
            delivery=delivery.id,
            message_at=message.received_at,
            recipient=delivery.mailbox,
            reverse_path=message.reverse_path,
            message_id=message.message_id,
            size_octets=message.size_octets,
            list=message.list or "",
            campaign=message.campaign or "",
            tag=message.tag or "",
            metadata=message.metadata or "",
            from_domain=message.from_domain,
            signing_domain=message.signing_domain or "",
            site=peer.site,
            source=peer.source,
            pool=message.pool or "",
            host=peer.host,
            address=peer.address,
            tls=peer.tls,
            attempt=delivery.attempts,
            reply=reply.text if reply is not None else "",
            enhanced=(reply.enhanced or "") if isinstance(outcome, Delivered) and reply else getattr(outcome, "enhanced", ""),
            reason=outcome.why if isinstance(outcome, Deferred | Bounced) else reason,
            classified=classified,
            next_attempt_at=datetime.fromtimestamp(delivery.due_at, UTC) if waiting else None,
            latency_seconds=round(max(0.0, now - delivery.created_at), 3),
            possible_duplicate=delivery.unknown_after_dot,
            hold=hold,
            transcript=outcome.transcript[:_MAX_TRANSCRIPT] if isinstance(outcome, Deferred | Bounced) and failed else "",
        )


def owes(message: Message, delivery: Delivery, action: str) -> bool:
    """Whether the sender is owed a DSN of an action (RFC 3461 s5.2, s4.1): never for a null reverse-path or our own DSNs."""
    if not message.reverse_path or message.is_dsn or message.account == SYSTEM_ACCOUNT or delivery.notify.never:
        return False
    if message.sandbox:  # nothing leaves a sandbox
        return False
    if action == "delayed":
        return delivery.notify.said and delivery.notify.delay
    if action == "failed":
        return delivery.notify.failure
    return delivery.notify.success


def _said(outcome: Deferred | Bounced) -> str:
    """Give what a DSN and the queue show: the peer's reply, else our own words with their status."""
    return outcome.reply.text if outcome.reply is not None else f"{outcome.enhanced} {outcome.why}"
