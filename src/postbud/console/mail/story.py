"""What happened to a message, told in order: each delivery's events as lines of a timeline. Reads; knows no page.

Invariant: everything that came from a peer is plain text here; the templates escape it.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from postbud.console.mail.fold import EventData
from postbud.console.mail.meanings import Meaning, meaning
from postbud.console.mail.models import DeliveryRow, EventRow, MessageRow

_MOST_EVENTS = 2000  # of one message on one page
_LOOKS: dict[str, tuple[str, str, str | Promise]] = {  # kind → colour, icon, title
    "accepted": ("info", "mail", _("Accepted")),
    "delivered": ("ok", "mail-check", _("Delivered")),
    "captured": ("held", "flask", _("Captured")),
    "deferred": ("warn", "clock", _("Refused for now")),
    "bounced": ("bad", "mail-x", _("Refused for good")),
    "expired": ("bad", "mail-x", _("Given up")),
    "cancelled": ("", "ban", _("Cancelled")),
    "suppressed": ("", "ban", _("Not sent: the recipient is suppressed")),
    "held": ("held", "player-pause", _("Held")),
    "released": ("info", "player-play", _("Released")),
    "quarantined": ("bad", "alert-triangle", _("Set aside for the operator")),
    "commanded": ("info", "refresh", _("Sent again by hand")),
    "dsn_received": ("warn", "mail-x", _("A report came back")),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One event. `data` has what was kept of it."""

    id: str
    at: datetime
    kind: str
    colour: str
    image: str
    title: str
    data: EventData
    raw: str


@dataclass(frozen=True, slots=True)
class Told:
    """One delivery with its timeline, and what its state means."""

    delivery: DeliveryRow
    lines: list[Line]
    meaning: Meaning | None


def tell(message: MessageRow, deliveries: list[DeliveryRow]) -> list[Told]:
    """Give every delivery with its events in order."""
    events = EventRow.objects.filter(account=message.account, message=message.id).order_by("at", "id")[:_MOST_EVENTS]
    lines: dict[str, list[Line]] = defaultdict(list)
    shared: list[Line] = []
    for event in events:
        line = _line(event)
        (lines[event.delivery] if event.delivery else shared).append(line)
    return [
        Told(one, sorted([*shared, *lines[one.id]], key=lambda line: (line.at, line.id)), meaning(one)) for one in deliveries
    ]


def _line(event: EventRow) -> Line:
    octets = bytes(event.data)
    colour, image, title = _LOOKS.get(event.kind, ("", "history", event.kind))
    whole: dict[str, Any] = {"id": event.id, "kind": event.kind, "at": event.at, "message": event.message}
    if event.delivery:
        whole["delivery"] = event.delivery
    whole |= msgspec.json.decode(octets)
    raw = msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
    return Line(event.id, event.at, event.kind, colour, image, str(title), msgspec.json.decode(octets, type=EventData), raw)
