"""Serving lanes: the tasks that own connections, take batches in fair order, keep the pace, and hear what the site says.

Owns the lanes and their tasks. Does not know the disk or what is not ready yet (`scheduler`), nor what an outcome means for a
delivery (`attempt`, `record`). A task is one connection: it leaves when there is nothing to do or nothing may be done.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from postbud.delivery.attempt import Attempts
from postbud.delivery.crowd import Crowd
from postbud.delivery.lane import Active, Lane
from postbud.egress.client import Connection
from postbud.egress.egress import Egress
from postbud.egress.limits import NodeLimits
from postbud.egress.routing import Routing
from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome, Scope
from postbud.shaping.limits import Action
from postbud.shaping.pace import Pace, PaceSettings

_IDLE_SECONDS = 5.0
_NAP_SECONDS = 1.0
_REST_SECONDS = 30.0  # a lane whose next turn is far away opens no connection till then, and looks again after so long
_OVERDUE_SECONDS = 10.0
_YIELD_SECONDS = 2.5
_WANTED_SECONDS = 0.25
_GIVE_SECONDS = 1.0
_TURN_SECONDS = 2.0  # how long a worker keeps a connection at least while another one has none


class Owner(Protocol):
    """Who handed the deliveries over and takes them back."""

    stopping: bool

    def done(self, batch: list[Active]) -> None:
        """Take deliveries back whose attempt is recorded."""

    def after_bug(self, batch: list[Active]) -> None:
        """Take deliveries back whose attempt ended in an exception of ours."""

    def spawn(self, work: Coroutine[None, None, None], what: str) -> None:
        """Run a task; an exception of it is told, not raised."""


@dataclass(slots=True)
class _Line:
    """One connection's task: what it has in hand."""

    lane: Lane
    connection: Connection | None = None
    batch: list[Active] = field(default_factory=list)
    leased: bool = False  # counts among the connections of all workers
    leased_at: float = 0.0


class Lanes:
    """Every lane of one worker."""

    def __init__(
        self,
        egress: Egress,
        attempts: Attempts,
        limits: NodeLimits,
        pace: PaceSettings,
        notice_after_seconds: float,
        owner: Owner,
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._egress = egress
        self._attempts = attempts
        self._limits = limits
        self._pace = pace
        self._notice_after_seconds = notice_after_seconds
        self._owner = owner
        self._clock = clock
        self._dice = dice
        self._lanes: dict[tuple[str, str], Lane] = {}
        self.crowd = Crowd()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def push(self, active: Active, routing: Routing) -> None:
        """Put a ready delivery into its lane."""
        key = (routing.source.id, routing.site)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, routing, Pace(routing.limits.connections, self._clock(), self._pace))
        lane.routing = routing
        lane.push(active)
        self._staff(lane)

    def tick(self) -> None:
        """Give lanes the connections that they may have by now; forget those that have nothing to remember."""
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda started: self.crowd.turned(loop.time() - started), loop.time())
        now = self._clock()
        for lane in list(self._lanes.values()):
            self._staff(lane)
            if lane.wants_lease and not (lane.waiting and lane.pace.connections(now)):
                self._want(lane, wants=False)
            if lane.idle and self._limits.starves(lane.name):
                lane.wake.set()
            if lane.waiting and now >= lane.look_at:
                lane.look_at = now + _OVERDUE_SECONDS
                self._give_up_waiting(lane, now)
            if lane.may_go(now):
                del self._lanes[lane.key]

    def _give_up_waiting(self, lane: Lane, now: float) -> None:
        """Record what waited for its turn until it expired, or so long that its sender should know (P3)."""
        taken = lane.take_overdue(now, self._notice_after_seconds)
        if taken:
            why = lane.pace.state(now).why or "no connection became free"
            outcome = Deferred(f"waited for its turn at {lane.key[1]}: {why}", "4.4.5", Scope.SITE)
            self._owner.spawn(self._settle(taken, outcome), "settling what waited too long")

    def close(self) -> None:
        """Let go of the limits that workers share."""
        self._limits.close()

    def wake_all(self) -> None:
        """Let idle tasks look again: the owner stops."""
        for lane in self._lanes.values():
            lane.wake.set()

    def _staff(self, lane: Lane) -> None:
        if self._owner.stopping:
            return
        now = self._clock()
        if lane.has_refused(now):
            if not lane.settling:
                lane.settling = True
                self._owner.spawn(self._settle_refused(lane), "settling what a site does not take")
        elif lane.wants_connection(now) and (not lane.connections or self.crowd.has_room):
            lane.connections += 1
            self.crowd.count += 1
            self._owner.spawn(self._serve(lane), "serving a lane")
        elif lane.idle and lane.waiting:
            lane.wake.set()

    # -- one connection's task -----------------------------------------------------------------------------------------------

    async def _serve(self, lane: Lane) -> None:
        """Take batches while there are any, reuse the connection, leave when idle or told to wait."""
        line = _Line(lane)
        try:
            while not self._owner.stopping:
                await self._drop_unusable(line)
                if not await self._turn(line):
                    break
                line.batch = lane.next_batch()
                if not line.batch:
                    continue
                lane.pace.started(self._clock())  # before the connection: others that open one meanwhile wait their turn
                connection = line.connection or await self._connect(line)
                if connection is None:
                    break
                outcomes = await self._attempts.run(connection, line.batch)
                batch, line.batch = line.batch, []
                self._owner.done(batch)
                self._hear(lane, batch, outcomes)
                if self._should_yield(line) or (lane.connections > 1 and self.crowd.is_crowded):
                    break
        finally:
            lane.connections -= 1
            self.crowd.count -= 1
            self._owner.after_bug(line.batch)
            if line.connection is not None:
                lane.connected -= 1
                await line.connection.quit()
            if line.leased:
                self._limits.release(lane.name)
            self._staff(lane)

    def _lease(self, line: _Line) -> bool:
        """Have one of the connections that all workers together may have; without one, ask for it and leave."""
        lane = line.lane
        if not line.leased:
            line.leased = self._limits.acquire(lane.name, lane.routing.limits.connections)
            if lane.wants_lease is line.leased:
                self._want(lane, wants=not line.leased)
            line.leased_at = self._clock()
            if not line.leased:
                lane.cap_shared(lane.connections - 1, line.leased_at + _WANTED_SECONDS)
        return line.leased

    def _should_yield(self, line: _Line) -> bool:
        """Whether a worker with fewer connections should have this one; this lane then waits a little before it asks again."""
        lane, now = line.lane, self._clock()
        if not self._limits.should_yield(lane.name, lane.routing.limits.connections, lane.connections):
            may_give = lane.connections > 1 or now - line.leased_at >= _TURN_SECONDS
            if not may_give or now < lane.gave_at + _GIVE_SECONDS or not self._limits.starves(lane.name):
                return False
            lane.gave_at = now  # one is enough: who has none needs a moment to take it
        lane.cap_shared(max(lane.connections - 1, 0), now + _YIELD_SECONDS)
        return True

    def _want(self, lane: Lane, *, wants: bool) -> None:
        lane.wants_lease = wants
        self._limits.want(lane.name, wants)

    async def _connect(self, line: _Line) -> Connection | None:
        """Open the session for a batch that was taken; without one, the batch is settled or back in its lane."""
        lane = line.lane
        opened = await self._egress.connect(lane.routing)
        if isinstance(opened, Deferred | Bounced):
            refused, line.batch = line.batch, []
            await self._not_connected(lane, refused, opened)
            return None
        line.connection = opened
        lane.connected += 1
        lane.pace.connected()
        return opened

    async def _drop_unusable(self, line: _Line) -> None:
        if line.connection is not None and not line.connection.usable:
            line.lane.connected -= 1
            connection, line.connection = line.connection, None
            await connection.quit()

    async def _turn(self, line: _Line) -> bool:
        """Wait for something to do and for the right to do it; False when the task should leave."""
        lane = line.lane
        while not self._owner.stopping:
            if not lane.waiting:
                if line.connection is None or not await self._linger(lane):
                    return False
                continue
            delay = lane.pace.delay_seconds(self._clock())
            if delay <= 0:
                if not self._lease(line):
                    return False
                rate = lane.routing.limits.messages_per_second
                delay = self._limits.reserve(lane.name, rate) if rate else 0.0
            if delay <= 0:
                return True
            if delay > _IDLE_SECONDS:
                lane.rests_until = self._clock() + min(delay, _REST_SECONDS)
                return False
            if lane.connections > lane.allowed(self._clock()):
                return False
            await asyncio.sleep(min(delay, _NAP_SECONDS))
        return False

    async def _linger(self, lane: Lane) -> bool:
        lane.wake.clear()
        lane.idle += 1
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await lane.wake.wait()
        except TimeoutError:
            return bool(lane.waiting)
        finally:
            lane.idle -= 1
        return bool(lane.waiting) or not self._limits.starves(lane.name)

    # -- what the site says ----------------------------------------------------------------------------------------------------

    def _hear(self, lane: Lane, batch: list[Active], outcomes: list[Outcome]) -> None:
        now = self._clock()
        delivered = False
        for outcome in outcomes:
            if isinstance(outcome, Delivered):
                delivered = True
            elif isinstance(outcome, Deferred):
                self._obey(lane, batch[0], outcome, now)
        if delivered:
            lane.pace.delivered(now)
            if lane.waiting and lane.connections < lane.routing.limits.connections:  # the window has grown
                self._staff(lane)

    def _obey(self, lane: Lane, active: Active, outcome: Deferred, now: float) -> None:
        action = self._egress.asks(lane.key[1], outcome)
        if action is Action.SLOW:
            lane.pace.slow_down(now, outcome.why, self._dice())
        elif action is Action.ACCOUNT:
            until = now + self._pace.account_seconds * (0.8 + 0.4 * self._dice())
            known = replace(outcome, transcript="")  # it names this message's recipients
            lane.stop_account(active.message.account, until, known)
            self._staff(lane)

    async def _not_connected(self, lane: Lane, batch: list[Active], outcome: Deferred | Bounced) -> None:
        """No connection: the site takes no more of them, or asks us to slow down, or is dead for now."""
        now = self._clock()
        if outcome.scope is Scope.MESSAGE:  # no descriptor or memory of ours: it is no fault of the site (row 20)
            lane.put_back(batch)
            lane.cap_shared(lane.connected, now + _NAP_SECONDS)
            return
        if lane.connected > 0:  # it takes us, only not so often: wait for those connections, count no attempt
            lane.pace.refused_connection(now, lane.connected, outcome.why)
            lane.put_back(batch)
            return
        if isinstance(outcome, Deferred):
            if self._egress.asks(lane.key[1], outcome) is Action.SLOW:
                lane.pace.slow_down(now, outcome.why, self._dice())
                await self._settle(batch, outcome)
                return
            lane.pace.failed(now, outcome.why, self._dice())
            lane.dead = outcome
        await self._settle(batch + lane.take_all(), outcome)

    async def _settle_refused(self, lane: Lane) -> None:
        """Record what need not be tried: all of a dead site, or of an account that a site does not want."""
        try:
            while not self._owner.stopping:
                taken, outcome = lane.take_refused(self._clock())
                if outcome is None or not taken:
                    break
                await self._settle(taken, outcome)
        finally:
            lane.settling = False
        self._staff(lane)

    async def _settle(self, failed: list[Active], outcome: Deferred | Bounced) -> None:
        try:
            by_message: dict[str, list[Active]] = {}
            for active in failed:
                by_message.setdefault(active.message.id, []).append(active)
            await self._attempts.settle_unsent(list(by_message.values()), outcome)
        except BaseException:
            self._owner.after_bug(failed)
            raise
        self._owner.done(failed)

    async def settle(self, failed: list[Active], outcome: Deferred | Bounced) -> None:
        """Record an outcome for deliveries that never reached a lane: there is no route."""
        for active in failed:
            active.leased, active.recorded = True, False
        await self._settle(failed, outcome)
