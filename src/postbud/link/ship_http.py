"""Stage 7, ship, with a console: events in the order of their commits, posted in batches; its high-water mark decides.

Same shape as `link.ship.FileShipper`. Invariants: what the console does not have stays in the spool, as far as that is bounded
(row 59); what it has stays `keep_seconds`, so that a console that was restored is sent it again (row 62); the console counts an
event once, whatever is sent twice. Mail never waits for any of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from postbud.link.follow import Patience
from postbud.link.ship import PruneEvents, ReadEvents
from postbud.model.link import BATCH_EVENTS, HighWater
from postbud.model.refusal import Refusal
from postbud.net.http import LinkClient, LinkDown, LinkRefused

_POLL_SECONDS = 0.2
_PRUNE_SECONDS = 60.0
_ASK_SECONDS = 15.0  # how often an idle shipper asks whether the console still has what it had
_BATCH_OCTETS = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpShipSettings:
    """Whose events, and how many are kept. `rows`: beyond so many, the oldest are forgotten, shipped or not."""

    node: str
    spool_id: int
    keep_seconds: float
    rows: int = 10_000_000


class HttpShipper:
    """Posts the events of one spool."""

    def __init__(
        self,
        settings: HttpShipSettings,
        client: LinkClient,
        read: ReadEvents,
        prune: PruneEvents,
        last_seq: Callable[[], Awaitable[int]],
        clock: Callable[[], float],
        dice: Callable[[], float],
        on_rewind: Callable[[int, int], None],
    ) -> None:
        """`on_rewind(from, to)` hears that the console lost events that it had. `last_seq` gives the newest event's number."""
        self._settings = settings
        self._client = client
        self._read = read
        self._prune = prune
        self._last_seq = last_seq
        self._clock = clock
        self._on_rewind = on_rewind
        self._patience = Patience(dice)
        self._one = asyncio.Lock()
        self._asked = False
        self._behind = False  # the last look found as many events as a batch takes
        self._ask_at = 0.0
        self.seq = 0
        self.shipped = 0
        self.problem: str | None = None

    async def run(self, on_problem: Callable[[str], None]) -> None:
        """Ship until cancelled; a console that does not answer is asked again, later each time."""
        prune_at = 0.0
        while True:
            wait = _POLL_SECONDS
            try:
                await self.ship_once()
                if self._behind:
                    wait = 0.0
                self.problem = None
                self._patience.restore()
            except (LinkDown, LinkRefused, Refusal) as error:
                why = f"events wait: {error}"
                if self.problem != why:
                    on_problem(why)
                self.problem = why
                wait = self._patience.next()
            if self._clock() >= prune_at:
                prune_at = self._clock() + _PRUNE_SECONDS
                await self._forget(on_problem)
            if wait:
                await asyncio.sleep(wait)

    async def ship_once(self) -> int:
        """Ship one batch; give how many events it had. One at a time, whoever calls.

        Raises:
            LinkDown, LinkRefused: As the client; nothing is lost.
        """
        async with self._one:
            if not self._asked or self._clock() >= self._ask_at:
                await self._ask()
            found = await self._read(self.seq, BATCH_EVENTS)
            self._behind = len(found) == BATCH_EVENTS
            page = _bounded(found)
            if not page:
                return 0
            answer = await self._client.post("/link/events", self._batch(page), HighWater)
            self._ask_at = self._clock() + _ASK_SECONDS
            last = page[-1][0]
            if answer.seq >= last:
                self.shipped += len(page)
                self.seq = last
            elif answer.seq < self.seq:
                self._rewind(answer.seq)
            else:
                self.seq = answer.seq
                raise LinkDown("the console takes no more events for now")
            return len(page)

    async def finish(self) -> None:
        """Note in the spool how far we came, for whoever adopts it. At a stop.

        Raises:
            Refusal: The spool does not take it.
        """
        if self._asked:
            await self._prune(self.seq, 0.0)

    async def _ask(self) -> None:
        mark = await self._client.get("/link/events", HighWater, {"spool": self._settings.spool_id})
        self._ask_at = self._clock() + _ASK_SECONDS
        if self._asked and mark.seq < self.seq:
            self._rewind(mark.seq)
        elif not self._asked:
            self.seq = mark.seq
        self._asked = True

    def _rewind(self, to: int) -> None:
        self._on_rewind(self.seq, to)
        self.seq = to

    def _batch(self, page: list[tuple[int, bytes]]) -> bytes:
        """Give the body: events are JSON already, and get their numbers in front."""
        head = b'{"node":%b,"spool":%d,"events":[' % (msgspec.json.encode(self._settings.node), self._settings.spool_id)
        return head + b",".join([b'{"seq":%d,%b' % (seq, event[1:]) for seq, event in page]) + b"]}"

    async def _forget(self, on_problem: Callable[[str], None]) -> None:
        """Forget what was shipped long ago, and what is too much even if it was not."""
        try:
            if self._asked:
                await self._prune(self.seq, self._clock() - self._settings.keep_seconds)
            beyond = await self._last_seq() - self._settings.rows
            if beyond > self.seq:
                forgotten = await self._prune(beyond, 0.0)
                on_problem(f"{forgotten} events were never shipped and are forgotten: there are too many")
        except Refusal as refusal:
            on_problem(f"events are not pruned: {refusal}")


def _bounded(page: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    octets = 0
    for at, (_, event) in enumerate(page):
        octets += len(event)
        if octets > _BATCH_OCTETS and at:
            return page[:at]
    return page
