"""The spool as its users see it. Signatures are settled; the storage behind them follows."""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Self

from postbud.model.delivery import Delivery, Message
from postbud.model.ids import DeliveryId, IdSource, MessageId
from postbud.spool.content import ContentWriter
from postbud.spool.inflight import InFlight
from postbud.spool.values import Batch, Counters, Filter, Gauges, SpoolSettings, StoredContent


class Spool:
    """One folder of accepted mail, owned by this process. Every method is for the event loop that opened it."""

    ids: IdSource
    spool_id: int
    counters: Counters
    in_flight: InFlight
    suspects: frozenset[DeliveryId]  # were under attempt at the last crash: try them one at a time
    broken: bool
    has_space: bool

    @classmethod
    async def open(cls, folder: Path, settings: SpoolSettings, *, on_broken: Callable[[str], None] = ...) -> Self:  # type: ignore[assignment]
        """Open or make a spool. Raises SpoolLocked, SpoolUnusable."""
        raise NotImplementedError

    def open_content(self) -> ContentWriter:
        """Start to receive a content. Raises Refusal(NO_SPACE), SpoolBroken."""
        raise NotImplementedError

    async def commit(self, batch: Batch) -> None:
        """Make a batch durable. Raises Refusal(NO_SPACE), Refusal(TEMPORARY), SpoolBroken."""
        raise NotImplementedError

    async def load_due(self, now: float, limit: int, loaded: Container[DeliveryId]) -> list[tuple[Message, Delivery]]:
        """Give deliveries that are queued, not held and due, oldest first, without those in `loaded`."""
        raise NotImplementedError

    async def next_due_at(self, after: float | None = None) -> float | None:
        """Tell when the next delivery that is not held falls due."""
        raise NotImplementedError

    async def content(self, message_id: MessageId) -> StoredContent:
        """Read a content. Raises Damaged (quarantined), Unknown."""
        raise NotImplementedError

    async def find(self, wanted: Filter, limit: int, after: DeliveryId | None = None) -> list[tuple[Message, Delivery]]:
        """Give deliveries for `postbud queue`, in order of acceptance."""
        raise NotImplementedError

    async def events_after(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Give events as JSON, in the order of their commits."""
        raise NotImplementedError

    async def prune_events(self, shipped_seq: int, older_than: float) -> int:
        """Forget events shipped and older than an instant, and the oldest shipped beyond `event_rows`."""
        raise NotImplementedError

    async def gauges(self) -> Gauges:
        """Count what is in the spool."""
        raise NotImplementedError

    async def close(self) -> None:
        """Finish what waits, checkpoint, unlock."""
        raise NotImplementedError
