"""A bounce came back after we delivered: note it on the delivery's account and tell whom the next hop could not.

The delivery stays `delivered` (P3: one final state); the event is `dsn_received`. Since the reverse-path on the wire was
ours, the submitter's own reverse-path gets a DSN from us; else the bounce would end here.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from postbud.bounce.classify import Classifier
from postbud.delivery.notify import Notifier
from postbud.delivery.record import Change, owes
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import AccountId, CredentialId, DeliveryId, EventId, MessageId, ServerId
from postbud.model.mailbox import Mailbox, MailboxError
from postbud.model.returned import Heard, Returned, ReturnedRecipient
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch

FindAccepted = Callable[[str], Awaitable[Event | None]]
_FAILED = "failed"
_MAX_HEARD = 100_000


class Returns:
    """Records bounces for messages that this worker's spool accepted."""

    def __init__(
        self,
        spool: Spool,
        notifier: Notifier,
        classifier: Classifier,
        find_accepted: FindAccepted,
        admit: Callable[[Message, Content, Sequence[Delivery]], None],
        new_event_id: Callable[[], EventId],
        clock: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._notifier = notifier
        self._classifier = classifier
        self._find_accepted = find_accepted
        self._admit = admit
        self._new_event_id = new_event_id
        self._clock = clock
        self._heard: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def record(self, returned: Returned) -> Heard:
        """Record a bounce durably; tell whether it was news, and about whom."""
        accepted = await self._find_accepted(returned.id)
        if accepted is None:
            return Heard.UNKNOWN
        message = _message_of(accepted)
        batch = Batch()
        changes: list[Change] = []
        known = _deliveries_of(accepted)
        seen: set[tuple[str, str]] = set()
        named = False
        for recipient in returned.recipients:
            found = _named(accepted, known, returned.id, recipient)
            if found is None:
                continue
            named = True
            if (found[1], recipient.action) in seen or (found[1], recipient.action) in self._heard:
                continue
            seen.add((found[1], recipient.action))
            delivery = _delivery_of(accepted, *found, recipient)
            event = self._event(accepted, delivery, recipient, returned.reporting_mta)
            failed = recipient.action == _FAILED and owes(message, delivery, "failed")
            if failed:
                changes.append(Change(delivery, event, "failed"))
            batch.events.append(event)
        if not batch.events:
            return Heard.REPEATED if named else Heard.NOBODY
        reports, events = self._notifier.reports(message, None, changes)
        batch.messages.extend(reports)
        batch.events.extend(events)
        self._remember(seen)
        try:
            await self._spool.commit(batch)
        except BaseException:
            self._forget(seen)
            raise
        for report in reports:
            self._admit(report.message, report.content, report.deliveries)
        return Heard.NOTED

    def _remember(self, seen: set[tuple[str, str]]) -> None:
        """Note what was heard: who has a return path must not be able to storm the submitter with one bounce (row H4).

        Noted before the commit, so that two connections at once do not tell twice.
        """
        for one in seen:
            self._heard[one] = None
        while len(self._heard) > _MAX_HEARD:
            self._heard.popitem(last=False)

    def _forget(self, seen: set[tuple[str, str]]) -> None:
        for one in seen:
            self._heard.pop(one, None)

    def _event(self, accepted: Event, delivery: Delivery, recipient: ReturnedRecipient, host: str) -> Event:
        found = self._classifier.classify(None, recipient.status or None, recipient.diagnostic)
        return Event(
            id=self._new_event_id(),
            kind=EventKind.DSN_RECEIVED,
            at=datetime.fromtimestamp(self._clock(), UTC),
            account=accepted.account,
            server=accepted.server,
            credential=accepted.credential,
            message=accepted.message,
            delivery=delivery.id,
            message_at=accepted.message_at,
            recipient=delivery.mailbox,
            message_id=accepted.message_id,
            list=accepted.list,
            campaign=accepted.campaign,
            tag=accepted.tag,
            metadata=accepted.metadata,
            from_domain=accepted.from_domain,
            signing_domain=accepted.signing_domain,
            pool=accepted.pool,
            host=host,
            enhanced=recipient.status,
            reply=recipient.diagnostic,
            reason=recipient.action,
            classified=found.value,
        )


def _message_of(accepted: Event) -> Message:
    return Message(
        id=MessageId(accepted.message),
        account=AccountId(accepted.account),
        server=ServerId(accepted.server),
        credential=CredentialId(accepted.credential),
        reverse_path=accepted.reverse_path,
        signing_domain=accepted.signing_domain or None,
        from_domain=accepted.from_domain,
        received_at=accepted.at,
        size_octets=accepted.size_octets,
        subject=accepted.subject,
        message_id=accepted.message_id,
    )


def _deliveries_of(accepted: Event) -> dict[str, tuple[str, str]]:
    """Give mailbox and delivery id of each recipient, by the mailbox's key."""
    pairs = zip(accepted.recipients, accepted.deliveries, strict=False)
    return {_key(mailbox): (mailbox, delivery_id) for mailbox, delivery_id in pairs}


def _named(
    accepted: Event, known: dict[str, tuple[str, str]], wanted_id: str, recipient: ReturnedRecipient
) -> tuple[str, str] | None:
    """Give the delivery that a recipient block means: the token's own, else the one whose mailbox it names.

    The original recipient decides where it is one of ours: the final one may be where a next hop forwarded it to.
    """
    if wanted_id in accepted.deliveries:
        return accepted.recipients[accepted.deliveries.index(wanted_id)], wanted_id
    if len(known) == 1:
        return next(iter(known.values()))
    return known.get(_key(recipient.original)) or known.get(_key(recipient.mailbox))


def _delivery_of(accepted: Event, mailbox: str, delivery_id: str, recipient: ReturnedRecipient) -> Delivery:
    at = accepted.at.timestamp()
    return Delivery(
        id=DeliveryId(delivery_id),
        message_id=MessageId(accepted.message),
        mailbox=mailbox,
        domain=mailbox.rpartition("@")[2],
        due_at=at,
        expires_at=at,
        created_at=at,
        state=State.DELIVERED,
        last_reply=" ".join(part for part in (recipient.status, recipient.diagnostic) if part),
    )


def _key(mailbox: str) -> str:
    try:
        return Mailbox.parse(mailbox, smtputf8=True).key()
    except MailboxError:
        return mailbox.lower()
