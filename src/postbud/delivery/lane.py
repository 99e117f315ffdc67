"""Lanes: (egress source, site), where what is ready waits and connections are counted.

Pure bookkeeping without I/O. Deliveries of one message stand together, so that they leave in one transaction
(several RCPT), as far as they share a reverse-path. Order among accounts and classes is `shaping.fair`'s, speed is
`shaping.pace`'s.
"""

import asyncio
from dataclasses import dataclass, field

from postbud.delivery.record import owes
from postbud.egress.routing import Routing
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import MessageId
from postbud.model.outcome import Bounced, Deferred
from postbud.shaping.fair import FairQueue
from postbud.shaping.pace import Pace

_RECIPIENT_COST = 4096  # octets: what a recipient counts beside the content

BatchKey = tuple[MessageId, str, bool]
Share = tuple[str, str]  # account and site, or its domain while the site is not known


@dataclass(slots=True)
class Active:
    """A delivery in the active set: its message beside it, whether somebody works on it now."""

    message: Message
    delivery: Delivery
    share: Share = ("", "")
    leased: bool = False
    placed: bool = False  # stands in a lane or waits for a route
    recorded: bool = False  # the attempt under way is settled
    bugs: int = 0  # attempts that ended in an exception of ours
    cancelled: bool = False


@dataclass(slots=True)
class Lane:
    """What is ready for one site through one source."""

    key: tuple[str, str]
    routing: Routing
    pace: Pace
    connections: int = 0
    connected: int = 0  # of the connections, those whose session is open
    idle: int = 0
    shared_cap: int = 0  # what other workers leave to this one
    shared_cap_until: float = 0.0
    gave_at: float = 0.0  # when it gave a connection to a worker that had none
    dead: Deferred | Bounced | None = None  # why, while the pace says that the site is dead
    stopped: dict[str, tuple[float, Deferred]] = field(default_factory=dict)  # accounts that the site does not want now
    settling: bool = False
    look_at: float = 0.0  # when to look for what waited too long
    rests_until: float = 0.0  # its next turn is that far away
    wants_lease: bool = False  # asked other workers for one of the connections that all share
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _batches: dict[BatchKey, list[Active]] = field(default_factory=dict)
    _order: FairQueue[BatchKey] = field(default_factory=FairQueue)

    @property
    def waiting(self) -> int:
        """How many transactions wait."""
        return len(self._batches)

    @property
    def waiting_deliveries(self) -> int:
        """How many deliveries wait."""
        return sum(len(batch) for batch in self._batches.values())

    @property
    def name(self) -> str:
        """How the lane is called where workers share limits."""
        return f"{self.key[0]}|{self.key[1]}"

    def push(self, active: Active) -> None:
        """Queue a delivery behind its account's others, beside those of its message."""
        key = _batch_key(active)
        batch = self._batches.get(key)
        if batch is None:
            self._batches[key] = [active]
            self._order.push(active.message.account, key, marketing=active.message.marketing)
        else:
            batch.append(active)

    def next_batch(self) -> list[Active]:
        """Take the next deliveries that leave in one transaction; empty when nothing is ready."""
        limit = self.routing.limits.recipients_per_transaction
        while (key := self._order.pop(self._cost)) is not None:
            waiting = self._batches.pop(key)  # empty when all of it was overdue
            batch, rest = waiting[:limit], waiting[limit:]
            if rest:
                self._batches[key] = rest
                message = rest[0].message
                self._order.push(message.account, key, marketing=message.marketing, first=True)
            batch = [active for active in batch if not active.cancelled]
            if batch:
                for active in batch:
                    active.leased, active.recorded = True, False
                return batch
        return []

    def put_back(self, batch: list[Active]) -> None:
        """Put a batch that was taken back in front, as if nothing had happened."""
        for active in batch:
            active.leased = False
        key, message = _batch_key(batch[0]), batch[0].message
        if key in self._batches:
            self._batches[key] = batch + self._batches[key]
        else:
            self._batches[key] = batch
            self._order.push(message.account, key, marketing=message.marketing, first=True)

    def take_overdue(self, now: float, notice_after_seconds: float) -> list[Active]:
        """Take what should not wait for its turn any longer: it has expired, or its sender is owed a word about the delay."""
        taken = [
            active
            for batch in self._batches.values()
            for active in batch
            if not active.cancelled and _is_overdue(active, now, notice_after_seconds)
        ]
        for active in taken:
            self._batches[_batch_key(active)].remove(active)
            active.leased, active.recorded = True, False
        return taken

    def take_all(self) -> list[Active]:
        """Empty the lane and give what was ready, leased to the caller."""
        return self._lease(self._order.clear())

    def stop_account(self, account: str, until: float, outcome: Deferred) -> None:
        """Send nothing of one account until an instant: the site said that it is this sender, not the others."""
        self.stopped[account] = until, outcome

    def has_refused(self, now: float) -> bool:
        """Whether something waits here whose outcome is known: the site is dead, or does not want the account."""
        if not self._batches:
            return False
        if self.dead is not None and self.pace.is_dead(now):
            return True
        return any(now < until and self._order.waits(account) for account, (until, _) in self.stopped.items())

    def take_refused(self, now: float) -> tuple[list[Active], Deferred | Bounced | None]:
        """Take what need not be tried, with its outcome; nothing and None when there is no more."""
        if self.dead is not None and self.pace.is_dead(now):
            return self.take_all(), self.dead
        self.dead = None
        self.stopped = {account: stop for account, stop in self.stopped.items() if now < stop[0]}
        for account, (_, outcome) in self.stopped.items():
            taken = self._lease(self._order.remove(account))
            if taken:
                return taken, outcome
        return [], None

    def cap_shared(self, connections: int, until: float) -> None:
        """Leave the other connections to other workers until an instant."""
        self.shared_cap, self.shared_cap_until = connections, until

    def allowed(self, now: float) -> int:
        """How many connections this worker may have now."""
        allowed = self.pace.connections(now)
        return min(allowed, self.shared_cap) if now < self.shared_cap_until else allowed

    def wants_connection(self, now: float) -> bool:
        """Whether another connection would be of use and is allowed."""
        return bool(self._batches) and self.idle == 0 and now >= self.rests_until and self.connections < self.allowed(now)

    def may_go(self, now: float) -> bool:
        """Whether nothing is lost with the lane: nothing waits, nobody works, nothing is remembered of the site."""
        remembered = self.pace.remembers(now) or any(now < until for until, _ in self.stopped.values())
        return not (self._batches or self.connections or self.settling or remembered)

    def _cost(self, key: BatchKey) -> int:
        batch = self._batches[key]
        if not batch:
            return 0
        return batch[0].message.size_octets + _RECIPIENT_COST * len(batch)

    def _lease(self, keys: list[BatchKey]) -> list[Active]:
        taken = [active for key in keys for active in self._batches.pop(key) if not active.cancelled]
        for active in taken:
            active.leased, active.recorded = True, False
        return taken


def _is_overdue(active: Active, now: float, notice_after_seconds: float) -> bool:
    delivery = active.delivery
    if delivery.expires_at <= now:
        return True
    late = now - delivery.created_at >= notice_after_seconds
    return late and not delivery.delay_notified and owes(active.message, delivery, "delayed")


def _batch_key(active: Active) -> BatchKey:
    """Give what deliveries of one transaction share: message, reverse-path, and whether SMTPUTF8 is needed to name them."""
    return active.message.id, active.delivery.reverse_path or "", active.delivery.mailbox.isascii()
