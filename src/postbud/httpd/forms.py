"""The shapes of the API: what a request holds, and what is answered. `openapi` is made from these.

Only shapes: what a value may be is checked in `order`.
"""

from datetime import datetime

import msgspec


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mailbox with a name. `"Name <mailbox>"` and `"mailbox"` say the same in one string."""

    mailbox: str
    name: str = ""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attachment. `content` is base64. With `content_id` it is shown in the HTML part by `cid:`."""

    content: bytes
    filename: str = ""
    content_type: str = "application/octet-stream"
    content_id: str = ""


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A message to send: in parts (`subject`, `text`, `html`, `attachments`), or whole in `raw` (base64 of RFC 5322).

    With `raw`, `from` is the reverse-path and `to`, `cc` and `bcc` are the envelope's recipients; nothing is put into it.
    """

    sender: str | Person
    to: list[str | Person] | str | Person = []
    cc: list[str | Person] | str | Person = []
    bcc: list[str | Person] | str | Person = []
    reply_to: list[str | Person] | str | Person = []
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = {}
    attachments: list[File] = []
    raw: bytes | None = None
    reverse_path: str | None = None
    list: str | None = None
    campaign: str | None = None
    tag: str | None = None
    metadata: dict[str, str] | str | None = None
    send_at: datetime | None = None


class TakenRecipient(msgspec.Struct, frozen=True):
    """A recipient of an accepted message, and the id of the delivery to it."""

    mailbox: str
    delivery: str


class Taken(msgspec.Struct, frozen=True):
    """An accepted message: it is on disk, and will be delivered or you will hear why not."""

    id: str
    created_at: datetime
    recipients: list[TakenRecipient]


class DeliveryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One delivery. `state` is queued, delivered, captured, bounced, expired, cancelled or suppressed."""

    id: str
    mailbox: str
    state: str
    attempts: int = 0
    held_by: list[str] = []
    due_at: datetime | None = None
    last_reply: str = ""


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
    """A message as far as it is kept: content goes with the last delivery, events after some days."""

    id: str
    created_at: datetime
    server: str
    subject: str
    message_id: str
    from_domain: str
    reverse_path: str
    size_octets: int
    deliveries: list[DeliveryState]
    events: list[EventState]
    list: str | None = None
    campaign: str | None = None
    tag: str | None = None
    metadata: str | None = None


class Cancelled(msgspec.Struct, frozen=True):
    """What a cancellation did: how many deliveries it ended, and the message after it."""

    cancelled: int
    message: MessageState
