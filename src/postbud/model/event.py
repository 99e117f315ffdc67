"""Events: what happened to a message or delivery, in the commit that made it so. Catalogue: `docs/events.md`.

One flat record for all kinds, so that every consumer reads one shape (JSON, one object a line). Absent fields are left out.
"""

from datetime import datetime
from enum import Enum

import msgspec


class EventKind(Enum):
    """Every kind of event there is."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    HELD = "held"
    RELEASED = "released"
    QUARANTINED = "quarantined"
    DSN_RECEIVED = "dsn_received"  # a bounce came back for a delivered delivery
    INBOUND_OTHER = "inbound_other"  # mail to one of our own mailboxes that is no bounce
    COMMANDED = "commanded"  # a worker carried out a command of the console


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. Times are UTC instants; every text of a peer is escaped and bounded."""

    id: str
    kind: EventKind
    at: datetime
    account: str = ""
    server: str = ""
    credential: str = ""
    message: str = ""
    delivery: str = ""
    message_at: datetime | None = None
    recipient: str = ""
    reverse_path: str = ""
    subject: str = ""
    message_id: str = ""
    size_octets: int = 0
    recipients: tuple[str, ...] = ()  # `accepted` only
    deliveries: tuple[str, ...] = ()  # `accepted` only, ids in the order of `recipients`
    notify: tuple[str, ...] = ()  # `accepted` only, NOTIFY of each of `recipients` when any said it
    orcpt: tuple[str, ...] = ()  # `accepted` only, ORCPT of each of `recipients` when any said it
    envid: str = ""  # `accepted` only
    list: str = ""
    campaign: str = ""
    tag: str = ""
    metadata: str = ""
    template: str = ""
    from_domain: str = ""
    signing_domain: str = ""
    site: str = ""
    source: str = ""
    pool: str = ""
    client: str = ""
    host: str = ""
    address: str = ""
    tls: str = ""
    attempt: int = 0
    reply: str = ""
    enhanced: str = ""
    reason: str = ""
    classified: str = ""  # coarse class of the failure: recipient, temporary, policy, infrastructure, unknown
    next_attempt_at: datetime | None = None
    latency_seconds: float = 0.0  # accept to this event
    possible_duplicate: bool = False
    hold: str = ""
    transcript: str = ""
    findings: tuple[str, ...] = ()
    command: str = ""  # `commanded` only: the command's id; `message` is then what it made, `reason` why it did nothing
    changed: int = 0  # `commanded` only: how many deliveries it changed
