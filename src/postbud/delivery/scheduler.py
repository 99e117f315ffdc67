"""Stage 4, schedule: the active set and what enters it.

Owns what is in memory: a bounded active set with a fair share for each account at each site (`shaping.shares`); the rest
waits on disk by due time. A lease is being here and marked `leased`; it dies with the process, and the spool's lock keeps a
second owner out, so a lease needs no expiry of its own. Knows nothing of SMTP and serves no lane: that is `lanes`.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field

from postbud.delivery.attempt import Attempts
from postbud.delivery.capture import Captures
from postbud.delivery.lane import Active, Share
from postbud.delivery.lanes import Lanes
from postbud.egress.egress import Egress
from postbud.egress.limits import NodeLimits
from postbud.egress.routing import Routing
from postbud.model.delivery import Delivery, Message, State
from postbud.model.ids import DeliveryId
from postbud.model.outcome import Bounced, Deferred, Scope
from postbud.shaping.pace import PaceSettings
from postbud.shaping.shares import Shares
from postbud.spool.sqlite import Spool

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 5.0
_ACCOUNT_ALPHA = 1.0  # an account's backlog may have half of the active set: more than one of its sites, which has a third
_FRESH_TIMES = 2.0  # with fresh mail two thirds
_LOOKS_AT_ONCE = 50  # they pass over a million deliveries in a quarter of a second; then the lanes have their tick
_HORIZON_SECONDS = 30.0
_MAX_FULL = 10_000  # with more, whole accounts are passed over
_AFTER_BUG_SECONDS = 30.0
_AFTER_BUG_MAX_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Bounds of the active set, counted in deliveries, and how long sites are left alone."""

    active_limit: int = 20_000
    load_batch: int = 2_000
    pace: PaceSettings = field(default_factory=PaceSettings)
    delay_notice_after_seconds: float = 4 * 3600.0


class Scheduler:
    """Moves deliveries from due to recorded."""

    def __init__(
        self,
        spool: Spool,
        egress: Egress,
        attempts: Attempts,
        limits: NodeLimits,
        settings: SchedulerSettings,
        clock: Callable[[], float],
        dice: Callable[[], float],
        on_bug: Callable[[str, BaseException], None],
        captures: Captures,
    ) -> None:
        self.stopping = False
        self._captures = captures
        self._spool = spool
        self._egress = egress
        self._lanes = Lanes(egress, attempts, limits, settings.pace, settings.delay_notice_after_seconds, self, clock, dice)
        self._settings = settings
        self._clock = clock
        self._on_bug = on_bug
        self._active: dict[DeliveryId, Active] = {}
        self._shares: Shares[Share] = Shares(settings.active_limit)
        self._accounts: Shares[str] = Shares(settings.active_limit, _ACCOUNT_ALPHA)
        self._full: dict[tuple[str, str], Share] = {}  # (account, domain) that waits on disk until its share has drained
        self._full_accounts: set[str] = set()  # whose mail waits there until the account's own share has
        self._later: list[tuple[float, int, Active]] = []
        self._serial = itertools.count()
        self._unrouted: dict[tuple[str, str | None, bool], list[Active]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._backlog = True  # something due may be on disk that is not in memory, from `_looked_until` on
        self._looked_until = 0.0
        self._again = False  # or earlier; looked for from the start once the end was reached, so that a restart starves nobody
        self._look_at = 0.0
        self._tick_at = 0.0
        self._filling = asyncio.Event()
        self._claimed: set[DeliveryId] = set()
        self._watchers: list[set[DeliveryId]] = []

    # -- what others tell us -------------------------------------------------------------------------------------------

    def admit(self, message: Message, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries that were just committed; beyond the bound and the share they wait on disk."""
        soon = self._clock() + _HORIZON_SECONDS
        for delivery in deliveries:
            if delivery.due_at <= soon and delivery.id not in self._active and delivery.id not in self._claimed:
                self._take(message, delivery, fresh=True)

    def claim(self, delivery_id: DeliveryId) -> bool:
        """Take a delivery away from the scheduler, so that the caller alone may change it, until `give_back`.

        False when an attempt for it is under way or somebody else claimed it.
        """
        active = self._active.get(delivery_id)
        if delivery_id in self._claimed or (active is not None and active.leased):
            return False
        if active is not None:
            active.cancelled = True
            self._forget(active)
        self._claimed.add(delivery_id)
        self._touch(delivery_id)
        return True

    def give_back(self, delivery_ids: Iterable[DeliveryId]) -> None:
        """End claims; what became due is found on disk."""
        self._claimed.difference_update(delivery_ids)
        self.rouse()

    @contextlib.contextmanager
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
        self._again = True
        self._filling.set()

    def gauges(self) -> dict[str, float]:
        """Give what the metrics show."""
        return {
            "active_deliveries": len(self._active),
            "lanes": len(self._lanes),
            "lanes_paused": sum(lane.pace.connections(self._clock()) == 0 for lane in self._lanes),
            "connections": sum(lane.connections for lane in self._lanes),
            "ready_deliveries": sum(lane.waiting_deliveries for lane in self._lanes),
        }

    def lanes(self) -> list[dict[str, object]]:
        """Give one row a lane, for `postbud queue explain` and the state that nodes post."""
        now = self._clock()
        rows: list[dict[str, object]] = []
        for lane in self._lanes:
            state = lane.pace.state(now)
            rows.append(
                {
                    "source": lane.key[0],
                    "site": lane.key[1],
                    "ready": lane.waiting_deliveries,
                    "connections": lane.connections,
                    "connections_allowed": lane.allowed(now),
                    "messages_per_second": state.messages_per_second,
                    "paused_until": state.paused_until,
                    "dead_until": state.dead_until,
                    "why": state.why,
                    "stopped_accounts": {
                        account: {"until": until, "why": outcome.why}
                        for account, (until, outcome) in lane.stopped.items()
                        if now < until
                    },
                }
            )
        return rows

    # -- running --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Schedule until `stop`; returns when every task has ended."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._fill())

    def stop(self) -> None:
        """Start nothing more; attempts under way finish."""
        self.stopping = True
        self._filling.set()
        self._lanes.wake_all()

    def close(self) -> None:
        """Let go of what is shared with other workers, after `run` returned."""
        self._lanes.close()

    def spawn(self, work: Coroutine[None, None, None], what: str) -> None:
        """Run a task beside the others; an exception of it is told, not raised."""
        if self._group is None:
            work.close()
            raise RuntimeError("the scheduler does not run")
        self._group.create_task(self._guarded(work, what))

    async def _fill(self) -> None:
        while not self.stopping:
            try:
                await self._load_due()
            except Exception as error:  # noqa: BLE001 (whatever the disk says, what is in memory goes on)
                self._on_bug("loading due deliveries", error)
            self._wake_later()
            now = self._clock()
            if now >= self._tick_at or now < self._tick_at - _TICK_SECONDS:
                self._tick_at = now + _TICK_SECONDS
                self._lanes.tick()
                self._relieve()
            self._filling.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._filling.wait()

    def _relieve(self) -> None:
        """Look at the disk again where a full share has drained, and every few seconds for what has fallen due."""
        drained = [pair for pair, share in self._full.items() if self._shares.has_drained(share)]
        for pair in drained:
            del self._full[pair]
        accounts = {account for account in self._full_accounts if self._accounts.has_drained(account)}
        self._full_accounts -= accounts
        if drained or accounts or self._clock() >= self._look_at:
            self._again = True

    async def _load_due(self) -> None:
        now = self._clock()
        if self._again and not self._backlog:
            self._backlog, self._again, self._looked_until = True, False, 0.0
        room = min(self._settings.load_batch, self._settings.active_limit - self._shares.total)
        looks = 0
        while self._backlog and room > 0 and looks < _LOOKS_AT_ONCE:
            self._look_at = now + _LOOK_SECONDS
            room -= await self._look(now + _HORIZON_SECONDS, room)
            looks += 1

    async def _look(self, soon: float, limit: int) -> int:
        """Take the next of what is due, and note where to go on; give how many there were."""
        with self.watch() as touched:
            found = await self._spool.load_due(soon, limit, self._active, self._full, self._full_accounts, self._looked_until)
        self._looked_until = found.until
        self._backlog = found.until < soon or len(found.deliveries) >= limit
        for message, delivery in found.deliveries:
            if delivery.id not in self._active and delivery.id not in touched and delivery.id not in self._claimed:
                self._take(message, delivery, fresh=False)
        return len(found.deliveries)

    def _take(self, message: Message, delivery: Delivery, *, fresh: bool) -> None:
        """Let a delivery in, if its share has room; else remember that its like waits on disk.

        Fresh mail finds room beside its account's own backlog: on disk it would wait behind all of it.
        """
        routing = self._known_route(message, delivery)
        share = (message.account, routing.site if routing is not None else delivery.domain)
        if self.stopping:
            return
        account_has_room = self._accounts.has_room(message.account, _FRESH_TIMES if fresh else 1.0)
        if not (account_has_room and self._shares.has_room(share)):
            if account_has_room and len(self._full) < _MAX_FULL:
                self._full[message.account, delivery.domain] = share
            else:
                self._full_accounts.add(message.account)
            return
        active = Active(message, delivery, share)
        self._active[delivery.id] = active
        self._shares.take(share)
        self._accounts.take(message.account)
        if delivery.due_at > self._clock():
            self._wake_at(active, delivery.due_at)
        else:
            self._place(active, routing)

    def _forget(self, active: Active) -> None:
        if self._active.pop(active.delivery.id, None) is not None:
            self._shares.give_back(active.share)
            self._accounts.give_back(active.message.account)

    def _wake_at(self, active: Active, at: float) -> None:
        heapq.heappush(self._later, (at, next(self._serial), active))

    def _wake_later(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            active = heapq.heappop(self._later)[2]
            if not active.cancelled and not active.leased and not active.placed:
                self._place(active, self._known_route(active.message, active.delivery))

    def _known_route(self, message: Message, delivery: Delivery) -> Routing | None:
        if message.sandbox:
            return None
        return self._egress.known_route(delivery.domain, message.pool, message.require_tls)

    def _place(self, active: Active, routing: Routing | None) -> None:
        """Put a due delivery into its lane, or ask for the way first; what is of a sandbox goes no way at all."""
        active.placed = True
        if active.message.sandbox:
            self._captures.push(active, self)
            return
        if routing is not None:
            self._lanes.push(active, routing)
            return
        key = (active.delivery.domain, active.message.pool, active.message.require_tls)
        waiting = self._unrouted.get(key)
        if waiting is not None:
            waiting.append(active)
            return
        self._unrouted[key] = [active]
        if self._group is not None:
            self.spawn(self._find_route(key), "finding a route")

    async def _find_route(self, key: tuple[str, str | None, bool]) -> None:
        routing: Routing | Deferred | Bounced = Deferred("no route was found", "4.4.3", Scope.SITE)
        try:
            routing = await self._egress.route(key[0], key[1], require_tls=key[2])
        except Exception as error:  # noqa: BLE001 (in doubt, defer: those who wait must not be forgotten)
            self._on_bug("finding a route", error)
        waiting = [active for active in self._unrouted.pop(key, []) if not active.cancelled]
        if isinstance(routing, Deferred | Bounced):
            await self._lanes.settle(waiting, routing)
            return
        for active in waiting:
            self._share_with(active, routing.site)
            self._lanes.push(active, routing)

    def _share_with(self, active: Active, site: str) -> None:
        """Count a delivery at its site, now that it is known: under its domain a backlog would hold a second share."""
        self._shares.give_back(active.share)
        active.share = (active.message.account, site)
        self._shares.take(active.share)

    async def _guarded(self, work: Coroutine[None, None, None], what: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (the one handler of the scheduler's tasks: a bug ends one task, not the relay)
            self._on_bug(what, error)

    # -- what lanes give back -----------------------------------------------------------------------------------------------

    def after_bug(self, batch: list[Active]) -> None:
        """Keep deliveries whose attempt ended in an exception of ours: what was recorded is unknown, so wait and try again."""
        now = self._clock()
        self.done([active for active in batch if active.recorded])
        for active in [active for active in batch if not active.recorded]:
            active.leased = active.placed = False
            active.delivery.state = State.QUEUED
            active.delivery.unknown_after_dot = True
            active.bugs += 1
            self._touch(active.delivery.id)
            self._wake_at(active, now + min(_AFTER_BUG_SECONDS * 2.0**active.bugs, _AFTER_BUG_MAX_SECONDS))

    def done(self, batch: list[Active]) -> None:
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
                self._forget(active)
