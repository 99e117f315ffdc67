"""Lanes: (egress source, site), where what is ready waits and connections are counted.

Pure bookkeeping without I/O. Deliveries of one message stand together, so that they leave in one transaction
(several RCPT), as far as they share a reverse-path.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from postbud.egress.routing import Routing
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import MessageId


@dataclass(slots=True)
class Active:
    """A delivery in the active set: its message beside it, whether somebody works on it now."""

    message: Message
    delivery: Delivery
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
    connections_limit: int
    recipients_limit: int
    ready: OrderedDict[tuple[MessageId, str, bool], list[Active]] = field(default_factory=OrderedDict)
    connections: int = 0
    connected: int = 0  # of the connections, those whose session is open
    idle: int = 0
    capped_at: int = 0  # the site refused more than so many connections
    capped_until: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, active: Active) -> None:
        """Queue a delivery behind the others, beside those of its message."""
        batch_key = _batch_key(active)
        waiting = self.ready.get(batch_key)
        if waiting is None:
            self.ready[batch_key] = [active]
        else:
            waiting.append(active)

    def next_batch(self) -> list[Active]:
        """Take the next deliveries that leave in one transaction; empty when nothing is ready."""
        while self.ready:
            key, waiting = next(iter(self.ready.items()))
            batch, rest = waiting[: self.recipients_limit], waiting[self.recipients_limit :]
            if rest:
                self.ready[key] = rest
            else:
                del self.ready[key]
            batch = [active for active in batch if not active.cancelled]
            if batch:
                for active in batch:
                    active.leased, active.recorded = True, False
                return batch
        return []

    def take_all(self) -> list[Active]:
        """Empty the lane and give what was ready."""
        taken = [active for waiting in self.ready.values() for active in waiting if not active.cancelled]
        self.ready.clear()
        return taken

    def put_back(self, batch: list[Active]) -> None:
        """Put a batch that was taken back in front, as if nothing had happened."""
        for active in batch:
            active.leased = False
        key = _batch_key(batch[0])
        self.ready[key] = batch + self.ready.get(key, [])
        self.ready.move_to_end(key, last=False)

    def cap(self, connections: int, until: float) -> None:
        """Open no more than so many connections until an instant: the site said so by refusing one more."""
        self.capped_at = max(1, connections)
        self.capped_until = until

    def wants_connection(self, now: float) -> bool:
        """Whether another connection would be of use and is allowed."""
        allowed = min(self.connections_limit, self.capped_at) if now < self.capped_until else self.connections_limit
        return bool(self.ready) and self.idle == 0 and self.connections < allowed


def _batch_key(active: Active) -> tuple[MessageId, str, bool]:
    """Give what deliveries of one transaction share: message, reverse-path, and whether SMTPUTF8 is needed to name them."""
    return active.message.id, active.delivery.reverse_path or "", active.delivery.mailbox.isascii()
