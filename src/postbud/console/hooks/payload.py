"""What a webhook says: the public form of an event, in the words of Standard Webhooks (`type`, `timestamp`, `data`).

Owns which kinds are told and which fields; the management API gives events in the same form. Internal fields (spool numbers,
commands, findings' machinery) are left out. Source: the Standard Webhooks specification, 1.0.
"""

from datetime import datetime
from typing import Any

import msgspec

from postbud.model.event import Event, EventKind

TYPES: dict[EventKind, str] = {
    EventKind.ACCEPTED: "message.accepted",
    EventKind.DELIVERED: "delivery.delivered",
    EventKind.CAPTURED: "delivery.captured",
    EventKind.DEFERRED: "delivery.deferred",
    EventKind.BOUNCED: "delivery.bounced",
    EventKind.EXPIRED: "delivery.expired",
    EventKind.CANCELLED: "delivery.cancelled",
    EventKind.SUPPRESSED: "delivery.suppressed",
    EventKind.HELD: "delivery.held",
    EventKind.RELEASED: "delivery.released",
    EventKind.DSN_RECEIVED: "delivery.dsn_received",
}
TEST_TYPE = "endpoint.test"
_FIELDS = (
    "server", "credential", "message", "delivery", "message_at", "recipient", "reverse_path", "subject", "message_id",
    "size_octets", "list", "campaign", "tag", "metadata", "from_domain", "signing_domain", "site", "host", "tls", "attempt",
    "reply", "enhanced", "classified", "reason", "next_attempt_at", "latency_seconds", "possible_duplicate", "hold", "client",
)  # fmt: skip


def public_event(event: Event) -> dict[str, Any] | None:
    """Give an event as customers see it; None when it is none of theirs. Empty fields are left out."""
    kind = TYPES.get(event.kind)
    if kind is None:
        return None
    data: dict[str, Any] = {"id": event.id, "account": event.account}
    data |= {name: value for name in _FIELDS if (value := getattr(event, name))}
    if event.kind is EventKind.ACCEPTED:
        data["recipients"] = [
            {"mailbox": mailbox, "delivery": delivery}
            for mailbox, delivery in zip(event.recipients, event.deliveries, strict=False)
        ]
    return {"type": kind, "timestamp": event.at, "data": data}


def body_of(event: Event) -> bytes | None:
    """Give the octets that are posted for an event; None when it is not told."""
    public = public_event(event)
    return None if public is None else msgspec.json.encode(public)


def test_body(endpoint: str, at: datetime) -> bytes:
    """Give the octets of a test that a person asked for."""
    return msgspec.json.encode({"type": TEST_TYPE, "timestamp": at, "data": {"endpoint": endpoint}})
