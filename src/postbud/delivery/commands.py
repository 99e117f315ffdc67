"""Commands of the console, carried out on this worker's queue: retry, hold, release, cancel, resend (flow 5).

Each is carried out once: its id is remembered in the spool, in the commit of the `commanded` event that answers it, until it
expires. A worker that dies between the change and the answer carries it out again, which changes nothing more. Resending may
wait for the console, so it has a queue of its own and holds nothing else up. Invariant: a command about an account changes that
account's deliveries only; one that selects nothing by name is not carried out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from postbud.delivery.holds import Holds, Matches
from postbud.link.replica import Replica
from postbud.link.sets import hash_mailbox
from postbud.model.delivery import Delivery, Message
from postbud.model.event import Event, EventKind
from postbud.model.ids import DeliveryId, EventId, MessageId
from postbud.model.link import CommandKind, CommandRecord, Selector
from postbud.model.mailbox import Mailbox, MailboxError
from postbud.model.refusal import Refusal
from postbud.spool.marks import Marks
from postbud.spool.values import Filter, SpoolBroken
from postbud.telemetry.logs import Log

_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Changed:
    """What a command did here: how many deliveries it changed, which message it made, why it did nothing."""

    deliveries: int = 0
    message: str = ""
    reason: str = ""


class Commands:
    """Takes commands as the directory brings them, and carries them out one after the other."""

    def __init__(
        self, marks: Marks, holds: Holds, replica: Replica, new_event_id: Callable[[], EventId], clock: Callable[[], float],
        on_changed: Callable[[], None], resend: Callable[[CommandRecord], Awaitable[Changed | None]], log: Log,
    ) -> None:  # fmt: skip
        """`on_changed` hears that what is held changed; `resend` sends a delivery again, None: it is another worker's."""
        self._marks = marks
        self._holds = holds
        self._replica = replica
        self._new_event_id = new_event_id
        self._clock = clock
        self._on_changed = on_changed
        self._resend = resend
        self._log = log
        self._queue: asyncio.Queue[CommandRecord] = asyncio.Queue()
        self._slow: asyncio.Queue[CommandRecord] = asyncio.Queue()
        self._done: dict[str, float] = {}

    def put(self, commands: Iterable[CommandRecord]) -> None:
        """Take commands; those that are known or expired are passed over when their turn comes."""
        for command in commands:
            queue = self._slow if command.command is CommandKind.RESEND else self._queue
            queue.put_nowait(command)

    async def run(self) -> None:
        """Carry out until cancelled."""
        self._done = await self._marks.load(self._clock())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work(self._queue))
            group.create_task(self._work(self._slow))

    async def _work(self, queue: "asyncio.Queue[CommandRecord]") -> None:
        while True:
            command = await queue.get()
            if not await self._carry_out(command):
                await asyncio.sleep(_AGAIN_SECONDS)
                queue.put_nowait(command)

    async def _carry_out(self, command: CommandRecord) -> bool:
        """Carry one out if that is still to be done; False: the spool does not take it now."""
        now = self._clock()
        if command.id in self._done or command.expires_at.timestamp() <= now:
            return True
        try:
            changed = await self._change(command)
            if changed is None:
                self._done[command.id] = command.expires_at.timestamp()
                return True
            await self._marks.answer(command.id, command.expires_at.timestamp(), self._answer(command, changed, now), now)
        except SpoolBroken:
            raise
        except Refusal as refusal:
            self._log.warning("command_waits", command=command.id, why=refusal.private or refusal.public)
            return False
        self._done[command.id] = command.expires_at.timestamp()
        self._log.info("commanded", command=command.id, kind=command.command.value, changed=changed.deliveries)
        if changed.deliveries:
            self._on_changed()
        return True

    async def _change(self, command: CommandRecord) -> Changed | None:
        """Do it; None when another worker is to do it and to answer."""
        if command.command is CommandKind.RESEND:
            return await self._resend(command)
        return Changed(await self._change_queue(command))

    async def _change_queue(self, command: CommandRecord) -> int:
        selector = command.selector
        if selector == Selector():
            return 0
        wanted = Filter(
            account=selector.account,
            server=selector.server,
            credential=selector.credential,
            domain=selector.domain,
            message=MessageId(selector.message) if selector.message is not None else None,
            delivery=DeliveryId(selector.delivery) if selector.delivery is not None else None,
        )
        matches: Matches | None = None
        if selector.mailbox_hash is not None:
            matches = self._by_hash(selector.account, selector.mailbox_hash)
        match command.command:
            case CommandKind.RETRY:
                return await self._holds.retry(wanted, matches)
            case CommandKind.HOLD:
                return await self._holds.hold(wanted, matches)
            case CommandKind.RELEASE:
                return await self._holds.release(wanted, matches)
            case CommandKind.CANCEL:
                return await self._holds.cancel(wanted, matches)
            case CommandKind.RESEND | CommandKind.ERASE:
                return 0  # what is delivered is not here any more

    def _by_hash(self, account: str | None, wanted: int) -> Matches:
        key = self._replica.directory.set_keys.get(account or "")

        def matches(_message: Message, delivery: Delivery) -> bool:
            if key is None:
                return False
            try:
                mailbox_key = Mailbox.parse(delivery.mailbox, smtputf8=True).key()
            except MailboxError:
                return False
            return hash_mailbox(key, mailbox_key) == wanted

        return matches

    def _answer(self, command: CommandRecord, changed: Changed, now: float) -> bytes:
        return msgspec.json.encode(
            Event(
                id=self._new_event_id(),
                kind=EventKind.COMMANDED,
                at=datetime.fromtimestamp(now, UTC),
                account=command.selector.account or "",
                command=command.id,
                changed=changed.deliveries,
                message=changed.message,
                reason=changed.reason,
            )
        )
