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
    cancelled: bool = False


@dataclass(slots=True)
class Lane:
    """What is ready for one site through one source."""

    key: tuple[str, str]
    routing: Routing
    connections_limit: int
    recipients_limit: int
    ready: OrderedDict[tuple[MessageId, str], list[Active]] = field(default_factory=OrderedDict)
    connections: int = 0
    connected: int = 0  # of the connections, those whose session is open
    idle: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, active: Active) -> None:
        """Queue a delivery behind the others, beside those of its message."""
        batch_key = (active.message.id, active.delivery.reverse_path or "")
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
                    active.leased = True
                return batch
        return []

    def take_all(self) -> list[Active]:
        """Empty the lane and give what was ready."""
        taken = [active for waiting in self.ready.values() for active in waiting if not active.cancelled]
        self.ready.clear()
        return taken

    @property
    def wants_connection(self) -> bool:
        """Whether another connection would be of use and is allowed."""
        return bool(self.ready) and self.idle == 0 and self.connections < self.connections_limit
