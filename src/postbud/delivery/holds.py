"""Holding and releasing queued mail: by the account's standing, by its keys, by people, and by the clock.

Walks the spool in pages; each page is one commit. Idempotent: what is already so is left as it is.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from postbud.delivery.held import HeldOctets
from postbud.delivery.notify import Notifier
from postbud.delivery.record import Change, Recorder
from postbud.delivery.scheduler import Scheduler
from postbud.link.replica import Replica
from postbud.model.account import SYSTEM_ACCOUNT, Status
from postbud.model.delivery import Delivery, Hold, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import AccountId, DeliveryId
from postbud.shaping.holding import held_too_long, hold, release
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Damaged, Filter, Unknown

_PAGE = 500
_CLOSED_AFTER_SECONDS = 3600.0  # an account that is missing for less was a slip of somebody's editor
_STANDING_HOLDS = frozenset({Hold.BLOCK, Hold.PAUSE})


Matches = Callable[[Message, Delivery], bool]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one delivery: events of its own, or a final change with its event."""

    events: list[Event] = field(default_factory=list)
    change: Change | None = None


class Holds:
    """Keeps `held_by` true to the directory, to people's wishes and to the maxima."""

    def __init__(
        self,
        spool: Spool,
        scheduler: Scheduler,
        replica: Replica,
        recorder: Recorder,
        notifier: Notifier,
        has_key: Callable[[Message], bool],
        held: HeldOctets,
        clock: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._scheduler = scheduler
        self._replica = replica
        self._recorder = recorder
        self._notifier = notifier
        self._has_key = has_key
        self._held = held
        self._clock = clock
        self._gone_at: dict[AccountId, float] = {}

    async def review(self) -> int:
        """Go over everything held: release what nothing holds any more, expire what was held too long."""
        recount = self._held.recount()
        known = self._replica.directory.accounts
        self._gone_at = {account: at for account, at in self._gone_at.items() if account not in known}

        def review(message: Message, delivery: Delivery) -> Decision | None:
            decision = self._review_one(message, delivery)
            if delivery.held_by and (decision is None or decision.change is None):
                recount.see(message)
            return decision

        changed = await self._walk(Filter(held=True), review)
        recount.finish()
        return changed

    async def hold(self, wanted: Filter, matches: Matches | None = None) -> int:
        """Hold by an operator's word what is queued and not under way."""
        return await self._walk(wanted, lambda message, delivery: self._hold_one(message, delivery, Hold.OPERATOR), matches)

    async def release(self, wanted: Filter, matches: Matches | None = None) -> int:
        """Take an operator's hold away."""
        return await self._walk(wanted, lambda message, delivery: self._release(message, delivery, {Hold.OPERATOR}), matches)

    async def retry(self, wanted: Filter, matches: Matches | None = None) -> int:
        """Make due now what waits for its next attempt."""
        return await self._walk(wanted, self._retry_one, matches)

    async def cancel(self, wanted: Filter, matches: Matches | None = None, why: str = "cancelled by an operator") -> int:
        """End deliveries that are not under way, as `cancelled`."""
        return await self._walk(wanted, lambda message, delivery: self._cancel_one(message, delivery, why), matches)

    async def _walk(
        self, wanted: Filter, decide: Callable[[Message, Delivery], "Decision | None"], matches: Matches | None = None
    ) -> int:
        """Decide on what a filter finds and `matches` lets pass, page by page; give how many changed."""
        changed = 0
        after: DeliveryId | None = None
        while True:
            claimed: list[DeliveryId] = []
            batch = Batch()
            try:
                with self._scheduler.watch() as touched:
                    page = await self._spool.find(wanted, _PAGE, after)
                    meant = [found for found in page if matches is None or matches(*found)]
                    mine = [found for found in meant if found[1].id not in touched and self._scheduler.claim(found[1].id)]
                claimed = [delivery.id for _, delivery in mine]
                after = page[-1][1].id if page else after
                for message, delivery in mine:
                    decision = decide(message, delivery)
                    if decision is not None:
                        await self._add(batch, message, delivery, decision)
                if batch.updates:
                    await self._spool.commit(batch)
                    changed += len(batch.updates)
            finally:
                self._scheduler.give_back(claimed)
            if len(page) < _PAGE:
                return changed

    async def _add(self, batch: Batch, message: Message, delivery: Delivery, decision: "Decision") -> None:
        batch.updates.append(delivery)
        batch.events.extend(decision.events)
        if decision.change is not None:
            batch.events.append(decision.change.event)
            content = None
            if decision.change.notice is not None:
                with suppress(Damaged, Unknown):
                    content = (await self._spool.content(message.id)).content
                    content = await self._notifier.returnable(message, content, [decision.change])
            reports, events = self._notifier.reports(message, content, [decision.change])
            batch.messages.extend(reports)
            batch.events.extend(events)

    def _review_one(self, message: Message, delivery: Delivery) -> "Decision | None":
        gone: set[Hold] = set()
        if delivery.held_by & _STANDING_HOLDS and message.account != SYSTEM_ACCOUNT:
            if self._is_closed(message.account):
                return Decision(change=self._recorder.finish(message, delivery, State.CANCELLED, "the account was closed"))
            standing = self._replica.directory.standing(message.account, message.server, message.credential)
            if standing is Status.ACTIVE:
                gone |= _STANDING_HOLDS
            elif standing is Status.PAUSED:
                gone.add(Hold.BLOCK)
        if Hold.KEY in delivery.held_by and self._has_key(message):
            gone.add(Hold.KEY)
        released = self._release(message, delivery, gone)
        if held_too_long(delivery, self._clock()):
            change = self._recorder.finish(message, delivery, State.EXPIRED, "held for longer than allowed")
            return Decision(released.events if released is not None else [], change)
        return released

    def _is_closed(self, account: AccountId) -> bool:
        """Whether an account is gone from the directory for good: a mistake in a file must not cost queued mail."""
        if account in self._replica.directory.accounts:
            return False
        now = self._clock()
        return now - self._gone_at.setdefault(account, now) >= _CLOSED_AFTER_SECONDS

    def _release(self, message: Message, delivery: Delivery, holders: set[Hold]) -> "Decision | None":
        now = self._clock()
        released = [holder for holder in sorted(holders, key=lambda h: h.value) if release(delivery, holder, now)]
        if not released:
            return None
        return Decision(
            [self._recorder.note(EventKind.RELEASED, message, delivery, "", hold=holder.value) for holder in released]
        )

    def _hold_one(self, message: Message, delivery: Delivery, holder: Hold) -> "Decision | None":
        if not hold(delivery, holder, self._clock()):
            return None
        return Decision([self._recorder.note(EventKind.HELD, message, delivery, "by an operator", hold=holder.value)])

    def _retry_one(self, message: Message, delivery: Delivery) -> "Decision | None":
        now = self._clock()
        if delivery.held_by or delivery.due_at <= now:
            return None
        delivery.due_at = now
        return Decision([self._recorder.note(EventKind.RELEASED, message, delivery, "retry by an operator")])

    def _cancel_one(self, message: Message, delivery: Delivery, why: str) -> "Decision | None":
        return Decision(change=self._recorder.finish(message, delivery, State.CANCELLED, why))
