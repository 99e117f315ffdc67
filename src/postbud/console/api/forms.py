"""What the API answers with, as JSON. The same names as in the sending API, with what only the log knows added."""

from datetime import datetime

import msgspec

from postbud.console.mail.fold import EventData
from postbud.console.mail.models import DeliveryRow, EventRow, MessageRow


class DeliveryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One delivery as it stands. Times are ISO 8601, UTC; `latency_ms` is from acceptance to its last change of state."""

    id: str
    mailbox: str
    state: str
    attempts: int = 0
    held_by: tuple[str, ...] = ()
    due_at: datetime | None = None
    last_reply: str = ""
    enhanced: str = ""
    reason: str = ""
    classified: str = ""
    site: str = ""
    host: str = ""
    tls: str = ""
    source: str = ""
    latency_ms: int = 0
    returned: str = ""
    updated_at: datetime | None = None


class EventState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened: `kind` as in the catalogue of events."""

    id: str
    kind: str
    at: datetime
    delivery: str = ""
    recipient: str = ""
    attempt: int = 0
    reply: str = ""
    enhanced: str = ""
    reason: str = ""
    hold: str = ""
    host: str = ""
    tls: str = ""
    next_attempt_at: datetime | None = None


class MessageState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message with its whole history, as long as the plan keeps the log."""

    id: str
    created_at: datetime
    server: str
    credential: str
    subject: str
    message_id: str
    from_domain: str
    reverse_path: str
    size_octets: int
    deliveries: list[DeliveryState]
    events: list[EventState]
    client: str = ""
    signing_domain: str = ""
    list: str | None = None
    campaign: str | None = None
    tag: str | None = None
    metadata: str | None = None


def message_state(message: MessageRow, deliveries: list[DeliveryRow], events: list[EventRow]) -> MessageState:
    """Tell a message by its rows."""
    mailboxes = {row.id: row.mailbox for row in deliveries}
    return MessageState(
        id=message.id,
        created_at=message.at,
        server=message.server,
        credential=message.credential,
        subject=message.subject,
        message_id=message.message_id,
        from_domain=message.from_domain,
        reverse_path=message.reverse_path,
        size_octets=message.size_octets,
        deliveries=[_delivery(row) for row in deliveries],
        events=[_event(row, mailboxes) for row in events],
        client=message.client,
        signing_domain=message.signing_domain,
        list=message.list or None,
        campaign=message.campaign or None,
        tag=message.tag or None,
        metadata=message.metadata or None,
    )


def _delivery(row: DeliveryRow) -> DeliveryState:
    return DeliveryState(
        id=row.id,
        mailbox=row.mailbox,
        state=row.state,
        attempts=row.attempts,
        held_by=row.holders,
        due_at=row.next_attempt_at,
        last_reply=row.reply,
        enhanced=row.enhanced,
        reason=row.reason,
        classified=row.classified,
        site=row.site,
        host=row.host,
        tls=row.tls,
        source=row.source,
        latency_ms=row.latency_ms,
        returned=row.returned,
        updated_at=row.updated_at,
    )


def _event(row: EventRow, mailboxes: dict[str, str]) -> EventState:
    data = msgspec.json.decode(bytes(row.data), type=EventData)
    return EventState(
        id=row.id,
        kind=row.kind,
        at=row.at,
        delivery=row.delivery,
        recipient=data.recipient or mailboxes.get(row.delivery, ""),
        attempt=data.attempt,
        reply=data.reply,
        enhanced=data.enhanced,
        reason=data.reason,
        hold=data.hold,
        host=data.host,
        tls=data.tls,
        next_attempt_at=data.next_attempt_at,
    )
