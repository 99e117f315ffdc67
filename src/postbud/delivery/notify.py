"""Our own DSNs (RFC 3461 s6, RFC 3464): one report a message and action, written into the commit that owes it.

Knows how a report becomes a message of `acct_system`; the text is built in `mime.dsn`. Never answers a null reverse-path.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from postbud.delivery.record import Change
from postbud.link.replica import Replica
from postbud.mime.dsn import MAX_RETURNED_OCTETS, Action, DsnRecipient, build_dsn
from postbud.model.account import SYSTEM_ACCOUNT
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import CredentialId, EventId, IdSource, ServerId
from postbud.model.text import printable
from postbud.spool.values import NewMessage

_MAX_MESSAGE_ID = 900
_STATUS = re.compile(r"([245])\.(\d{1,3}\.\d{1,3})", re.ASCII)
_CLASS = {Action.FAILED: 5, Action.DELAYED: 4, Action.RELAYED: 2, Action.DELIVERED: 2, Action.EXPANDED: 2}


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Who reports: the host that signs the report as reporting MTA, and how long we try to deliver it."""

    hostname: str
    expire_after_seconds: float


class Notifier:
    """Builds DSN messages."""

    def __init__(self, settings: NotifySettings, replica: Replica, ids: IdSource, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._replica = replica
        self._ids = ids
        self._clock = clock

    async def returnable(self, message: Message, content: Content | None, changes: Sequence[Change]) -> Content | None:
        """Give a content with its body in memory if a report is to return it whole; RET=FULL counts for failures only.

        What is beyond `MAX_RETURNED_OCTETS` comes back as its header section, so its file is not read: a report must not
        cost more than the mail that it is about, and the submitter has the original.
        """
        if content is None or isinstance(content.body, bytes) or not message.ret_full or content.octets > MAX_RETURNED_OCTETS:
            return content
        if not any(change.notice == Action.FAILED.value for change in changes):
            return content
        try:
            return replace(content, body=await asyncio.to_thread(content.body.read_bytes))
        except OSError:  # the header section still tells which message it was
            return content

    def reports(
        self, message: Message, content: Content | None, changes: Sequence[Change]
    ) -> tuple[list[NewMessage], list[Event]]:
        """Give the DSNs that changes of one message owe, grouped by action, with their `accepted` events."""
        made: list[NewMessage] = []
        events: list[Event] = []
        for action in Action:
            owed = [change.delivery for change in changes if change.notice == action.value]
            if owed:
                new, event = self._report(message, content, action, owed)
                made.append(new)
                events.append(event)
        return made, events

    def _report(
        self, message: Message, content: Content | None, action: Action, deliveries: list[Delivery]
    ) -> tuple[NewMessage, Event]:
        now = self._clock()
        at = datetime.fromtimestamp(now, UTC)
        host = self._settings.hostname
        message_id = self._ids.message()
        smtputf8 = not message.reverse_path.isascii() or message.smtputf8
        body = content.body if content is not None and isinstance(content.body, bytes) else None
        report = build_dsn(
            reporting_mta=host,
            sender=f"postmaster@{host}",
            to=message.reverse_path,
            recipients=[_reported(delivery, action) for delivery in deliveries],
            message_id=f"{message_id}@{host}",
            at=at,
            original_header=content.header if content is not None else _remembered(message),
            original_body=body,
            full=message.ret_full is True and action is Action.FAILED and body is not None,
            arrived_at=message.received_at,
            envid=message.envid,
            subject=message.subject,
            smtputf8=smtputf8,
        )
        signing_domain = self._replica.directory.covering(SYSTEM_ACCOUNT, host)
        mailbox = message.reverse_path
        new = Message(
            id=message_id,
            account=SYSTEM_ACCOUNT,
            server=ServerId("srv_system"),
            credential=CredentialId("crd_system"),
            reverse_path="",
            signing_domain=signing_domain.name if signing_domain is not None else None,
            from_domain=host,
            received_at=at,
            size_octets=report.octets,
            eight_bit=report.facts.eight_bit,
            smtputf8=smtputf8,
            subject="Delivery report",
            message_id=f"<{message_id}@{host}>",
            is_dsn=True,
        )
        delivery = Delivery(
            id=self._ids.delivery(),
            message_id=message_id,
            mailbox=mailbox,
            domain=mailbox.rpartition("@")[2],
            due_at=now,
            created_at=now,
            expires_at=now + self._settings.expire_after_seconds,
        )
        event = _accepted(self._ids.event(), new, delivery, message)
        return NewMessage(new, report, [delivery]), event


def _accepted(event_id: EventId, report: Message, delivery: Delivery, about: Message) -> Event:
    return Event(
        id=event_id,
        kind=EventKind.ACCEPTED,
        at=report.received_at,
        account=report.account,
        message=report.id,
        message_at=report.received_at,
        recipients=(delivery.mailbox,),
        deliveries=(delivery.id,),
        size_octets=report.size_octets,
        message_id=report.message_id,
        subject=report.subject,
        from_domain=report.from_domain,
        reason=f"report for {about.id}",
    )


def _reported(delivery: Delivery, action: Action) -> DsnRecipient:
    return DsnRecipient(
        final=delivery.mailbox,
        action=action,
        status=_status(delivery, action),
        original=delivery.orcpt,
        remote_mta=delivery.last_host or None,
        diagnostic=delivery.last_reply or None,
        last_attempt_at=datetime.fromtimestamp(delivery.last_attempt_at, UTC) if delivery.last_attempt_at else None,
        will_retry_until=datetime.fromtimestamp(delivery.expires_at, UTC) if delivery.state is State.QUEUED else None,
    )


def _remembered(message: Message) -> bytes:
    """Give what is left of the header section when the content is gone: enough for a program to find the message."""
    return f"Message-ID: {printable(message.message_id, _MAX_MESSAGE_ID)}\r\n".encode() if message.message_id else b""


def _status(delivery: Delivery, action: Action) -> str:
    if delivery.state is State.EXPIRED:
        return "4.4.7"
    words = delivery.last_reply.split(" ", 2)
    for word in words[:2]:
        found = _STATUS.fullmatch(word)
        if found is not None:
            return word if action is Action.FAILED and found[1] in "45" else f"{_CLASS[action]}.{found[2]}"
    return f"{_CLASS[action]}.0.0"
