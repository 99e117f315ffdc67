"""A bounce came back after we delivered: note it on the delivery's account and tell whom the next hop could not.

The delivery stays `delivered` (P3: one final state); the event is `dsn_received`. Since the reverse-path on the wire was
ours, the submitter's own reverse-path gets a DSN from us, if it asked for one of that action (RFC 3461 s4.1, s6); else the
report would end here. What was asked stands in the `accepted` event, since the message is gone; so is its content, and RET
cannot be honoured (what a stranger calls our message is not passed on under our signature).
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest

from postbud.bounce.classify import Classifier
from postbud.delivery.notify import Notifier
from postbud.delivery.record import Change, owes
from postbud.mime.dsn import Action
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.envelope import Notify
from postbud.model.event import Event, EventKind
from postbud.model.ids import AccountId, CredentialId, DeliveryId, EventId, MessageId, ServerId
from postbud.model.mailbox import Mailbox, MailboxError
from postbud.model.returned import Heard, Returned, ReturnedRecipient
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch

FindAccepted = Callable[[str], Awaitable[Event | None]]
_PASSED_ON = frozenset(action.value for action in Action)
_MAX_HEARD = 100_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """One recipient as the `accepted` event knows it."""

    mailbox: str
    id: str
    notify: str
    orcpt: str


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
        known = _Recipients(accepted, returned.id)
        seen: set[tuple[str, str]] = set()
        named = False
        for recipient in returned.recipients:
            found = known.named(recipient)
            if found is None:
                continue
            named = True
            key = (found.id, recipient.action)
            if key in seen or key in self._heard:
                continue
            seen.add(key)
            delivery = _delivery_of(accepted, found, recipient, returned.reporting_mta)
            event = self._event(accepted, delivery, recipient, returned.reporting_mta)
            if recipient.action in _PASSED_ON and owes(message, delivery, recipient.action):
                changes.append(Change(delivery, event, recipient.action))
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
        envid=accepted.envid or None,
    )


class _Recipients:
    """The recipients of an accepted message, found by what a returned DSN says of them. Built once for all its blocks."""

    def __init__(self, accepted: Event, wanted_id: str) -> None:
        told = zip_longest(accepted.recipients, accepted.deliveries, accepted.notify, accepted.orcpt, fillvalue="")
        known = [Accepted(*one) for one in told]
        self._own = next((one for one in known if one.id == wanted_id), known[0] if len(known) == 1 else None)
        self._by_mailbox = {_key(one.mailbox): one for one in known}
        self._by_orcpt = {_key(one.orcpt.partition(";")[2]): one for one in reversed(known) if one.orcpt}

    def named(self, block: ReturnedRecipient) -> Accepted | None:
        """Give the recipient that a block means: the token's own, else the only one, else the one that it names.

        The original recipient decides where it is one of ours: the final one may be where a next hop forwarded it to.
        """
        if self._own is not None:
            return self._own
        original = _key(block.original) if block.original else ""
        found = self._by_orcpt.get(original) or self._by_mailbox.get(original)
        return found or self._by_mailbox.get(_key(block.mailbox))


def _delivery_of(accepted: Event, found: Accepted, recipient: ReturnedRecipient, host: str) -> Delivery:
    at = accepted.at.timestamp()
    kind, _, said = recipient.diagnostic.partition(";")
    spoken = kind.strip().lower() == "smtp"  # else it is no reply of a host, and the report quotes it as it is
    said = said.strip() if spoken else recipient.diagnostic
    with_status = recipient.status in said.split(" ", 2)[:2] or not recipient.status
    return Delivery(
        id=DeliveryId(found.id),
        message_id=MessageId(accepted.message),
        mailbox=found.mailbox,
        domain=found.mailbox.rpartition("@")[2],
        due_at=at,
        expires_at=at,
        created_at=at,
        state=State.DELIVERED,
        notify=Notify.of(found.notify),
        orcpt=found.orcpt or None,
        last_reply=said if with_status else f"{recipient.status} {said}".rstrip(),
        last_host=host if spoken else "",
    )


def _key(mailbox: str) -> str:
    try:
        return Mailbox.parse(mailbox, smtputf8=True).key()
    except MailboxError:
        return mailbox.lower()
