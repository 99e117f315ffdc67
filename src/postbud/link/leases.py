"""The months of accounts: what this worker may accept without asking, leased from the console in blocks (flow 4).

Owns the balances in memory and the asking; the spool keeps them, and a use is durable in the commit of its message. Invariants:
while the console answers, all workers together never accept more than the allowance; no message asks, but the first of an
account and the last ones of an allowance, which wait for an answer on the way; a silent console stops nobody before a small
advance is used up as well. A worker that dies between a grant and its note asks again under the same id, and gets the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from postbud.link.follow import Patience
from postbud.link.replica import Grant
from postbud.model.ids import AccountId
from postbud.model.lease import StoredLease, lease_name
from postbud.model.link import Lease, LeaseRequest
from postbud.model.refusal import Refusal, Why
from postbud.net.http import LinkClient, LinkDown, LinkRefused

_READY_SECONDS = 2.0
_BLOCK_PART = 50  # a lease is at most this part of the allowance
_LEAST_PART = 200  # and at least this one
_REST_PART = 10  # but never more than this part of what the month still has: the end is shared finely
_AHEAD_SECONDS = 60.0
_GRACE_PART = 20
_GRACE_LEAST = 10
_AT_ONCE = 4
_ASK_AGAIN_SECONDS = 60.0

NOTHING: list[tuple[str, int]] = []
Note = Callable[[str, str, int, int], Awaitable[None]]


@dataclass(slots=True)
class Balance:
    """What this worker has of one account's month."""

    window: str
    ends_at: float
    left: int = 0
    count: int = 0  # leases noted so far: the next one's id is made of it
    used: int = 0  # of the whole account, as the console said last
    allowance: int | None = None  # at the last answer
    used_up: bool = False
    asked_at: float = 0.0
    taken: int = 0  # since the last lease
    low: int = 0
    waiting: list[tuple["asyncio.Future[None]", int]] = field(default_factory=list)


class MonthLeases:
    """Counts what accounts use of their months. `run` does the asking."""

    def __init__(
        self, client: LinkClient, node: str, spool_id: int, note: Note, clock: Callable[[], float],
        dice: Callable[[], float], stored: list[StoredLease], on_problem: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`stored` is what the spool has noted; `note(account, window, ends_at, granted)` has it note more, durably."""
        self._client = client
        self._node = node
        self._spool_id = spool_id
        self._note_in_spool = note
        self._clock = clock
        self._patience = Patience(dice)
        self._on_problem = on_problem
        this_month, ends_at = month_of(clock())
        self._balances = {
            AccountId(each.account): Balance(
                each.window, ends_at if each.window == this_month else float(each.ends_at), each.left, each.count
            )
            for each in stored
        }
        self._wanted: dict[AccountId, int] = {}
        self._roused = asyncio.Event()
        self.problem: str | None = None

    # -- what accept asks -----------------------------------------------------------------------------------------------------

    def check(self, grant: Grant) -> None:
        """Refuse at MAIL when the month is used up; look ahead otherwise.

        Raises:
            Refusal: RATE; the text says when the month begins again.
        """
        if grant.account.month_allowance is None:
            return
        balance = self._balance(grant)
        if balance.left <= 0:
            if balance.used_up and not self._may_ask_again(balance, grant):
                raise _used_up(balance)
            self._want(grant.account.id, 1)

    async def ready(self, grant: Grant, deliveries: int) -> None:
        """Wait a moment for a lease that is being asked for, where what is left is not enough. Never for long."""
        if grant.account.month_allowance is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _READY_SECONDS
        while (balance := self._balance(grant)).left < deliveries:
            if balance.used_up and not self._may_ask_again(balance, grant):
                return
            if self.problem is not None:  # nobody waits for a console that is known to be silent
                self._want(grant.account.id, deliveries)
                return
            answered: asyncio.Future[None] = loop.create_future()
            balance.waiting.append((answered, deliveries))
            self._want(grant.account.id, deliveries)
            try:
                async with asyncio.timeout_at(until):
                    await answered
            except TimeoutError:
                self.problem = "the console does not answer in time"

    def take(self, grant: Grant, deliveries: int) -> list[tuple[str, int]]:
        """Use so many; give what the batch of the message must count down.

        Raises:
            Refusal: RATE; nothing is used.
        """
        allowance = grant.account.month_allowance
        if allowance is None:
            return NOTHING
        balance = self._balance(grant)
        if balance.left < deliveries:
            advance = max(_GRACE_LEAST, allowance // _GRACE_PART) if self.problem is not None and not balance.used_up else 0
            if balance.left - deliveries < -advance:
                raise _used_up(balance) if balance.used_up else _unknown(balance)
        balance.left -= deliveries
        balance.taken += deliveries
        if balance.left < balance.low and not balance.used_up:
            self._want(grant.account.id, 0)
        return [(lease_name(grant.account.id, balance.window), deliveries)]

    def give_back(self, grant: Grant, deliveries: int) -> None:
        """Undo a use whose message was not stored after all."""
        if grant.account.month_allowance is not None:
            self._balance(grant).left += deliveries

    def _balance(self, grant: Grant) -> Balance:
        now = self._clock()
        balance = self._balances.get(grant.account.id)
        if balance is None or now >= balance.ends_at:
            window, ends_at = month_of(now)
            balance = Balance(window, ends_at, count=balance.count if balance is not None else 0)
            self._balances[grant.account.id] = balance
        return balance

    def _may_ask_again(self, balance: Balance, grant: Grant) -> bool:
        """Whether the console may say something else by now: the allowance was raised, or a while has passed."""
        return balance.allowance != grant.account.month_allowance or self._clock() - balance.asked_at >= _ASK_AGAIN_SECONDS

    def _want(self, account: AccountId, deliveries: int) -> None:
        if self._wanted.get(account, -1) < deliveries:
            self._wanted[account] = deliveries
        self._roused.set()

    # -- asking ---------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask for what is wanted until cancelled."""
        while True:
            await self._roused.wait()
            self._roused.clear()
            wanted, self._wanted = self._wanted, {}
            accounts = list(wanted)
            for start in range(0, len(accounts), _AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for account in accounts[start : start + _AT_ONCE]:
                        group.create_task(self._ask(account, wanted[account]))
            if self.problem is not None:
                await asyncio.sleep(self._patience.next())

    async def _ask(self, account: AccountId, deliveries: int) -> None:
        balance = self._balances[account]
        waiting, balance.waiting = balance.waiting, []
        try:
            wanted = self._how_many(balance, max(deliveries, sum(each for _, each in waiting)))
            if wanted > 0:
                name = f"{self._spool_id:08x}.{account}.{balance.count}"
                request = LeaseRequest(name, self._node, self._spool_id, account, wanted)
                lease = await self._client.post("/link/quota", msgspec.json.encode(request), Lease)
                await self._note(account, balance, lease, wanted)
            self.problem = None
            self._patience.restore()
        except (LinkDown, LinkRefused, Refusal) as error:
            why = f"no leases of allowances: {error}"
            if self.problem != why:
                self._on_problem(why)
            self.problem = why
            if balance.left <= 0:
                self._want(account, deliveries)
        finally:
            for answered, _ in waiting:
                if not answered.done():
                    answered.set_result(None)

    def _how_many(self, balance: Balance, deliveries: int) -> int:
        need = max(0, deliveries - balance.left)
        if balance.allowance is None:
            return need  # the first answer tells how much there is
        seconds = max(1.0, self._clock() - balance.asked_at)
        pace = int(balance.taken / seconds * _AHEAD_SECONDS)
        block = min(balance.allowance // _BLOCK_PART, max(balance.allowance // _LEAST_PART, pace))
        ahead = min(block, max(0, balance.allowance - balance.used) // _REST_PART)
        return need + ahead

    async def _note(self, account: AccountId, balance: Balance, lease: Lease, wanted: int) -> None:
        """Have the grant in the spool, then in the balance."""
        ends_at = lease.ends_at.timestamp()
        await self._note_in_spool(account, lease.window, int(ends_at), lease.granted)
        if balance.window != lease.window:
            balance.window, balance.left = lease.window, 0
        balance.ends_at = ends_at
        balance.count += 1
        balance.left += lease.granted
        balance.used, balance.allowance = lease.used, lease.allowance
        is_spent = lease.allowance is not None and lease.used >= lease.allowance
        balance.used_up = lease.granted < wanted and is_spent
        balance.low = lease.granted // 2 if lease.granted > 1 else 0
        balance.asked_at, balance.taken = self._clock(), 0


def month_of(now: float) -> tuple[str, float]:
    """Give the calendar month (UTC) of an instant, such as 2026-11, and when it ends."""
    at = datetime.fromtimestamp(now, UTC)
    ends_at = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return f"{at.year:04d}-{at.month:02d}", ends_at.timestamp()


def _used_up(balance: Balance) -> Refusal:
    begins = datetime.fromtimestamp(balance.ends_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = f"this account's allowance of the month is used up; it begins again at {begins}"
    return Refusal(Why.RATE, text, f"window {balance.window}")


def _unknown(balance: Balance) -> Refusal:
    text = "what is left of this account's month is not known now; try again in a few minutes"
    return Refusal(Why.RATE, text, f"window {balance.window}: the console is silent, and the advance is used up")
