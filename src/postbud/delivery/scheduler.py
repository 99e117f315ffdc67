"""Stage 4, schedule: the active set, the lanes, and the tasks that serve them.

Owns what is in memory: a bounded active set; the rest waits on disk by due time. A lease is being here and marked
`leased`; it dies with the process, and the spool's lock keeps a second owner out, so a lease needs no expiry of its own.
Knows nothing of SMTP: `attempt` speaks to the peer, `record` decides what it meant.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from postbud.delivery.attempt import Attempts
from postbud.delivery.lane import Active, Lane
from postbud.egress.client import Connection
from postbud.egress.egress import Egress
from postbud.egress.routing import Routing
from postbud.model.delivery import Delivery, Message, State
from postbud.model.ids import DeliveryId
from postbud.model.outcome import Bounced, Deferred, Scope
from postbud.spool.sqlite import Spool

_IDLE_SECONDS = 5.0
_TICK_SECONDS = 1.0
_HORIZON_SECONDS = 30.0
_AFTER_BUG_SECONDS = 30.0
_AFTER_BUG_MAX_SECONDS = 3600.0
_CAPPED_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Bounds of the active set, counted in deliveries."""

    active_limit: int = 20_000
    load_batch: int = 2_000


class Scheduler:
    """Moves deliveries from due to recorded."""

    def __init__(
        self,
        spool: Spool,
        egress: Egress,
        attempts: Attempts,
        settings: SchedulerSettings,
        clock: Callable[[], float],
        on_bug: Callable[[str, BaseException], None],
    ) -> None:
        self._spool = spool
        self._egress = egress
        self._attempts = attempts
        self._settings = settings
        self._clock = clock
        self._on_bug = on_bug
        self._active: dict[DeliveryId, Active] = {}
        self._later: list[tuple[float, int, Active]] = []
        self._serial = itertools.count()
        self._unrouted: dict[tuple[str, str | None, bool], list[Active]] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._group: asyncio.TaskGroup | None = None
        self._backlog = True  # something due may be on disk that is not in memory
        self._filling = asyncio.Event()
        self._stopping = False
        self._claimed: set[DeliveryId] = set()
        self._watchers: list[set[DeliveryId]] = []

    # -- what others tell us -------------------------------------------------------------------------------------------

    def admit(self, message: Message, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries that were just committed; beyond the bound they wait on disk."""
        for delivery in deliveries:
            if len(self._active) >= self._settings.active_limit or self._stopping:
                self._backlog = True
            elif delivery.id not in self._active:
                self._take(Active(message, delivery))

    def claim(self, delivery_id: DeliveryId) -> bool:
        """Take a delivery away from the scheduler, so that the caller alone may change it, until `give_back`.

        False when an attempt for it is under way or somebody else claimed it.
        """
        active = self._active.get(delivery_id)
        if delivery_id in self._claimed or (active is not None and active.leased):
            return False
        if active is not None:
            active.cancelled = True
            del self._active[delivery_id]
        self._claimed.add(delivery_id)
        self._touch(delivery_id)
        return True

    def give_back(self, delivery_ids: Iterable[DeliveryId]) -> None:
        """End claims; what became due is found on disk."""
        self._claimed.difference_update(delivery_ids)
        self.rouse()

    @contextmanager
    def watch(self) -> Iterator[set[DeliveryId]]:
        """Give a set of the deliveries that change hands while the block runs: what was read before may be stale."""
        touched: set[DeliveryId] = set()
        self._watchers.append(touched)
        try:
            yield touched
        finally:
            self._watchers.remove(touched)

    def _touch(self, delivery_id: DeliveryId) -> None:
        for watcher in self._watchers:
            watcher.add(delivery_id)

    def rouse(self) -> None:
        """Look at the disk again: something there may have become due (released, retried)."""
        self._backlog = True
        self._filling.set()

    def gauges(self) -> dict[str, float]:
        """Give what the metrics show."""
        return {
            "active_deliveries": len(self._active),
            "lanes": len(self._lanes),
            "connections": sum(lane.connections for lane in self._lanes.values()),
            "ready_deliveries": sum(len(waiting) for lane in self._lanes.values() for waiting in lane.ready.values()),
        }

    def lanes(self) -> list[dict[str, object]]:
        """Give one row a lane, for `postbud queue list` and the state that nodes post."""
        return [
            {
                "source": lane.key[0],
                "site": lane.key[1],
                "ready": sum(len(waiting) for waiting in lane.ready.values()),
                "connections": lane.connections,
            }
            for lane in self._lanes.values()
        ]

    # -- running --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Schedule until `stop`; returns when every task has ended."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._fill())

    def stop(self) -> None:
        """Start nothing more; attempts under way finish."""
        self._stopping = True
        self._filling.set()
        for lane in self._lanes.values():
            lane.wake.set()

    async def _fill(self) -> None:
        while not self._stopping:
            try:
                await self._load_due()
            except Exception as error:  # noqa: BLE001 (whatever the disk says, what is in memory goes on)
                self._on_bug("loading due deliveries", error)
            self._wake_later()
            for lane in list(self._lanes.values()):
                self._staff(lane)
                if not lane.ready and not lane.connections:
                    del self._lanes[lane.key]
            self._filling.clear()
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._filling.wait()
            except TimeoutError:
                self._backlog = True  # what is on disk may have fallen due

    async def _load_due(self) -> None:
        room = self._settings.active_limit - len(self._active)
        at_once = min(self._settings.load_batch, max(1, self._settings.active_limit // 2))
        if not self._backlog or room < at_once:
            return
        self._backlog = False
        now = self._clock()
        with self.watch() as touched:
            found = await self._spool.load_due(now + _HORIZON_SECONDS, at_once, self._active)
        for message, delivery in found:
            if delivery.id not in self._active and delivery.id not in touched and delivery.id not in self._claimed:
                self._take(Active(message, delivery))
        if len(found) >= at_once:
            self._backlog = True
            self._filling.set()

    def _take(self, active: Active) -> None:
        self._active[active.delivery.id] = active
        if active.delivery.due_at > self._clock():
            self._wake_at(active, active.delivery.due_at)
        else:
            self._place(active)

    def _wake_at(self, active: Active, at: float) -> None:
        heapq.heappush(self._later, (at, next(self._serial), active))

    def _wake_later(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            active = heapq.heappop(self._later)[2]
            if not active.cancelled and not active.leased and not active.placed:
                self._place(active)

    def _place(self, active: Active) -> None:
        """Put a due delivery into its lane, or ask for the way first."""
        active.placed = True
        key = (active.delivery.domain, active.message.pool, active.message.require_tls)
        routing = self._egress.known_route(*key)
        if routing is not None:
            self._push(active, routing)
            return
        waiting = self._unrouted.get(key)
        if waiting is not None:
            waiting.append(active)
            return
        self._unrouted[key] = [active]
        if self._group is not None:
            self._group.create_task(self._guarded(self._find_route(key), "finding a route"))

    async def _find_route(self, key: tuple[str, str | None, bool]) -> None:
        routing: Routing | Deferred | Bounced = Deferred("no route was found", "4.4.3", Scope.SITE)
        try:
            routing = await self._egress.route(key[0], key[1], require_tls=key[2])
        except Exception as error:  # noqa: BLE001 (in doubt, defer: those who wait must not be forgotten)
            self._on_bug("finding a route", error)
        waiting = [active for active in self._unrouted.pop(key, []) if not active.cancelled]
        if isinstance(routing, Deferred | Bounced):
            for active in waiting:
                active.leased, active.recorded = True, False
            await self._settle_all(waiting, routing)
            return
        for active in waiting:
            self._push(active, routing)

    def _push(self, active: Active, routing: Routing) -> None:
        key = (routing.source.id, routing.site)
        lane = self._lanes.get(key)
        if lane is None:
            lane = Lane(key, routing, routing.connections_limit, routing.recipients_limit)
            self._lanes[key] = lane
        lane.routing = routing
        lane.push(active)
        self._staff(lane)

    def _staff(self, lane: Lane) -> None:
        if lane.wants_connection(self._clock()) and self._group is not None and not self._stopping:
            lane.connections += 1
            self._group.create_task(self._guarded(self._serve(lane), "serving a lane"))
        elif lane.idle and lane.ready:
            lane.wake.set()

    async def _guarded(self, work: Coroutine[None, None, None], what: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (the one handler of the scheduler's tasks: a bug ends one task, not the relay)
            self._on_bug(what, error)

    # -- serving a lane ---------------------------------------------------------------------------------------------------

    async def _serve(self, lane: Lane) -> None:
        """Be one connection's task: take batches while there are any, reuse the connection, leave when idle."""
        connection: Connection | None = None
        batch: list[Active] = []
        try:
            while not self._stopping:
                batch = lane.next_batch()
                if not batch:
                    if connection is None or not await self._linger(lane):
                        break
                    continue
                if connection is not None and not connection.usable:
                    lane.connected -= 1
                    await connection.quit()
                    connection = None
                if connection is None:
                    opened = await self._egress.connect(lane.routing)
                    if isinstance(opened, Deferred | Bounced):
                        refused, batch = batch, []
                        await self._site_failed(lane, refused, opened)
                        break
                    connection = opened
                    lane.connected += 1
                await self._attempts.run(connection, batch)
                self._done(batch)
                batch = []
        finally:
            lane.connections -= 1
            self._after_bug(batch)
            self._staff(lane)
            if connection is not None:
                lane.connected -= 1
                await connection.quit()

    async def _linger(self, lane: Lane) -> bool:
        lane.wake.clear()
        lane.idle += 1
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await lane.wake.wait()
        except TimeoutError:
            return bool(lane.ready)
        finally:
            lane.idle -= 1
        return True

    async def _site_failed(self, lane: Lane, batch: list[Active], outcome: Deferred | Bounced) -> None:
        """No connection: what waits for the site shares the outcome, unless others are connected."""
        if lane.connected > 0:  # the site takes us, only not so often: wait for those connections, count no attempt
            lane.cap(lane.connected, self._clock() + _CAPPED_SECONDS)
            lane.put_back(batch)
            return
        others = lane.take_all()
        for active in others:
            active.leased, active.recorded = True, False
        await self._settle_all(batch + others, outcome)

    async def _settle_all(self, failed: list[Active], outcome: Deferred | Bounced) -> None:
        try:
            by_message: dict[str, list[Active]] = {}
            for active in failed:
                by_message.setdefault(active.message.id, []).append(active)
            await self._attempts.settle_unsent(list(by_message.values()), outcome)
        except BaseException:
            self._after_bug(failed)
            raise
        self._done(failed)

    def _after_bug(self, batch: list[Active]) -> None:
        """Keep deliveries whose attempt ended in an exception of ours: what was recorded is unknown, so wait and try again."""
        now = self._clock()
        self._done([active for active in batch if active.recorded])
        for active in [active for active in batch if not active.recorded]:
            active.leased = active.placed = False
            active.delivery.state = State.QUEUED
            active.delivery.unknown_after_dot = True
            active.bugs += 1
            self._touch(active.delivery.id)
            self._wake_at(active, now + min(_AFTER_BUG_SECONDS * 2.0**active.bugs, _AFTER_BUG_MAX_SECONDS))

    def _done(self, batch: list[Active]) -> None:
        """Release leases: what is final or far away leaves memory, what is due soon waits here."""
        now = self._clock()
        for active in batch:
            active.leased = active.placed = False
            delivery = active.delivery
            self._touch(delivery.id)
            queued = delivery.state is State.QUEUED and not delivery.held_by
            if queued and delivery.due_at - now <= _HORIZON_SECONDS and not active.cancelled:
                self._wake_at(active, max(delivery.due_at, now + 0.05))
            else:
                self._active.pop(delivery.id, None)
        if self._backlog and len(self._active) < self._settings.active_limit // 2:
            self._filling.set()
