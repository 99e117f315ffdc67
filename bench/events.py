"""Events as relays make them, for the bench of the console: many accounts, one with nine tenths of all, in the order of time.

Each message has one recipient. Most are delivered within seconds, some after a deferral, some bounce. Everything is drawn from
one seed.
"""

import heapq
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from postbud.model.event import EventKind
from postbud.model.ids import IdSource
from postbud.model.link import EventBatch, NumberedEvent

BIG_ACCOUNT = "acct_bench_big"
_WORDS = ["invoice", "order", "receipt", "reminder", "welcome", "report", "password", "delivery", "booking", "ticket"]
_TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384 verified"


class Stream:
    """The events of one spool, endless."""

    def __init__(self, spool: int, seed: int, *, start: float, messages_a_second: float, accounts: int = 50) -> None:
        self.spool = spool
        self._dice = random.Random(seed)
        self._now = start
        self._step = 1 / messages_a_second
        self._ids = IdSource(spool, lambda: int(self._now * 1000), self._dice.randbytes)
        self._accounts = [BIG_ACCOUNT, *(f"acct_bench_{number}" for number in range(accounts))]
        self._later: list[tuple[float, int, dict[str, object], int]] = []
        self._seq = 0
        self._made = 0

    def batches(self, size: int) -> Iterator[bytes]:
        """Give bodies of `POST /link/events`."""
        events = self.events()
        while True:
            page = tuple(next(events) for _ in range(size))
            yield msgspec.json.encode(EventBatch(node="bench", spool=self.spool, events=page))

    def events(self) -> Iterator[NumberedEvent]:
        """Give events in the order of their time."""
        while True:
            self._now += self._step
            while self._later and self._later[0][0] <= self._now:
                at, _, common, attempt = heapq.heappop(self._later)
                yield self._outcome(at, common, attempt)
            yield self._accept()

    def _event(self, at: float, **fields: object) -> NumberedEvent:
        self._seq += 1
        instant = datetime.fromtimestamp(at, UTC)
        return NumberedEvent(id=self._ids.event(), at=instant, seq=self._seq, **fields)  # type: ignore[arg-type]

    def _accept(self) -> NumberedEvent:
        dice = self._dice
        account = BIG_ACCOUNT if dice.random() < 0.9 else dice.choice(self._accounts)
        device = dice.randrange(20)
        recipient = f"{dice.choice(_WORDS)}.{dice.randrange(300_000)}@site{int(dice.paretovariate(0.6)) % 500}.example"
        common: dict[str, object] = {
            "account": account,
            "server": f"srv_{account[5:]}_{device % 3}",
            "credential": f"crd_{account[5:]}_{device}",
            "message": self._ids.message(),
            "message_at": datetime.fromtimestamp(self._now, UTC),
            "reverse_path": f"bounces@{account[5:]}.example",
            "message_id": f"<{dice.randbytes(12).hex()}@{account[5:]}.example>",
            "size_octets": 4096 + dice.randrange(4096),
            "from_domain": f"{account[5:]}.example",
            "signing_domain": f"{account[5:]}.example",
        }
        delivery = self._ids.delivery()
        attempt = {**common, "recipient": recipient, "delivery": delivery, "site": recipient.rpartition("@")[2]}
        self._made += 1
        heapq.heappush(self._later, (self._now + 0.1 + dice.expovariate(1.0), self._made, attempt, 1))
        subject = f"Your {dice.choice(_WORDS)} no. {dice.randrange(10**7)}"
        return self._event(
            self._now,
            kind=EventKind.ACCEPTED,
            **common,
            recipients=(recipient,),
            deliveries=(delivery,),
            subject=subject,
            client=f"192.0.2.{device}",
        )

    def _outcome(self, at: float, common: dict[str, object], attempt: int) -> NumberedEvent:
        dice = self._dice
        fields: dict[str, object] = {
            **common,
            "attempt": attempt,
            "host": f"mx1.{common['site']}",
            "address": "198.51.100.7",
            "source": "192.0.2.1",
            "tls": _TLS,
            "latency_seconds": max(at - common["message_at"].timestamp(), 0.0),  # type: ignore[attr-defined]
        }
        drawn = dice.random()
        if drawn < 0.05 and attempt < 5:
            self._made += 1
            heapq.heappush(self._later, (at + 60 * attempt, self._made, common, attempt + 1))
            due = datetime.fromtimestamp(at + 60 * attempt, UTC)
            reply = "451 4.7.1 Greylisted, try again in a minute"
            said = {"reply": reply, "enhanced": "4.7.1", "classified": "temporary", "next_attempt_at": due}
            return self._event(at, kind=EventKind.DEFERRED, **fields, **said, transcript="RCPT TO:<x>\n" + reply)
        if drawn < 0.08:
            said = {"reply": "550 5.1.1 No such user here", "enhanced": "5.1.1", "classified": "recipient"}
            return self._event(at, kind=EventKind.BOUNCED, **fields, **said, transcript="RCPT TO:<x>\n550 5.1.1 No such user")
        reply = f"250 2.0.0 Ok: queued as {dice.randbytes(6).hex().upper()}"
        return self._event(at, kind=EventKind.DELIVERED, **fields, reply=reply, enhanced="2.0.0")
