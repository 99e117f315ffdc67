"""A day of an office's mail as events, as a relay would ship them: most delivered at once, some late, a few bounced or held."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from postbud.model.event import Event, EventKind
from postbud.model.ids import IdSource, to_text
from postbud.model.link import EventBatch, NumberedEvent

SPOOL = 7
_PEOPLE = ("karen", "mette.friis", "jens", "info", "bogholderi", "lars", "anne-marie", "ordre", "booking", "peter")
_DOMAINS = (
    ("fjordpost.example", "mx.fjordpost.example"),
    ("kunde.example", "mx1.kunde.example"),
    ("bigmail.example", "in.bigmail.example"),
)
_SUBJECTS = (
    "Scan from 2nd floor", "Invoice 2026-1187", "Your order is on its way", "Door opened at night", "Reset your password",
    "Faktura 10432 fra Holm Bogtryk", "Receipt for <b>14 copies</b>", "Weekly report", "Toner is low: black",
    "Tryksag klar til afhentning",
)  # fmt: skip
_GONE = "550 5.1.1 <{mailbox}>: no such mailbox here"
_LATER = "451 4.7.1 greylisted, try again in 5 minutes"


class MailDay:
    """Makes the events; the dice are seeded, so each run makes the same."""

    def __init__(self, now: datetime, account: str, from_domain: str) -> None:
        self._now, self._account, self._from_domain = now, account, from_domain
        self._dice = random.Random(4)
        self._at = now
        self._ids = IdSource(SPOOL, lambda: int(self._at.timestamp() * 1000), self._dice.randbytes)
        self._seq = 0

    def batch(self, senders: list[tuple[str, str]], count: int) -> EventBatch:
        """Give `count` messages of the last day, sent by pairs of server and credential."""
        offsets = sorted(self._dice.triangular(0, 24 * 3600, 8 * 3600) for _ in range(count))
        events = [event for offset in reversed(offsets) for event in self._message(offset, *self._dice.choice(senders))]
        return EventBatch(spool=SPOOL, node="local", events=tuple(self._numbered(event) for event in events))

    def _numbered(self, event: Event) -> NumberedEvent:
        self._seq += 1
        return NumberedEvent(seq=self._seq, **msgspec.structs.asdict(event))

    def _id(self, prefix: str) -> str:
        return to_text(prefix, self._ids.octets())

    def _message(self, seconds_ago: float, server: str, credential: str) -> Iterator[Event]:
        accepted = self._now - timedelta(seconds=seconds_ago)
        self._at = accepted
        domain, host = self._dice.choice(_DOMAINS)
        mailbox = f"{self._dice.choice(_PEOPLE)}@{domain}"
        message, delivery = self._id("msg"), self._id("dlv")
        shared = {
            "account": self._account, "server": server, "credential": credential, "message": message, "message_at": accepted,
            "subject": self._dice.choice(_SUBJECTS), "from_domain": self._from_domain, "signing_domain": self._from_domain,
            "client": "192.0.2.44", "size_octets": self._dice.randint(2_000, 900_000),
        }  # fmt: skip
        yield Event(
            id=self._id("evt"), kind=EventKind.ACCEPTED, at=accepted, reverse_path=f"scanner@{self._from_domain}",
            message_id=f"<{message}@{self._from_domain}>", recipients=(mailbox,), deliveries=(delivery,), **shared,
        )  # fmt: skip
        rest = {**shared, "delivery": delivery, "recipient": mailbox, "site": host, "host": host, "source": "default"}
        luck = self._dice.random()
        if luck < 0.05:
            yield self._outcome(
                EventKind.BOUNCED,
                1.5,
                rest,
                reply=_GONE.format(mailbox=mailbox),
                enhanced="5.1.1",
                attempt=1,
                classified="recipient",
            )
            return
        if luck < 0.14:
            yield self._outcome(
                EventKind.DEFERRED, 1.2, rest, reply=_LATER, enhanced="4.7.1", attempt=1, classified="temporary"
            )
            if seconds_ago < 400:
                return
        late = 305.0 if luck < 0.14 else self._dice.lognormvariate(-0.2, 0.6)
        yield self._outcome(
            EventKind.DELIVERED, late, rest, reply="250 2.0.0 Ok: queued as 4fK2", enhanced="2.0.0", attempt=1, tls="TLSv1.3"
        )

    def _outcome(self, kind: EventKind, seconds: float, rest: dict, **more: object) -> Event:
        at = min(rest["message_at"] + timedelta(seconds=seconds), self._now)
        return Event(id=self._id("evt"), kind=kind, at=at, latency_seconds=seconds, **rest, **more)
