"""Commands of the console, carried out on this worker's queue: retry, hold, release, cancel (flow 5).

Each is carried out once: its id is remembered in the spool, in the commit of the `commanded` event that answers it, until it
expires. A worker that dies between the change and the answer carries it out again, which changes nothing more. Invariant: a
command about an account changes that account's deliveries only; one that selects nothing by name is not carried out.
"""

import asyncio
from collections.abc import Callable, Iterable
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


class Commands:
    """Takes commands as the directory brings them, and carries them out one after the other."""

    def __init__(
        self, marks: Marks, holds: Holds, replica: Replica, new_event_id: Callable[[], EventId], clock: Callable[[], float],
        on_changed: Callable[[], None], log: Log,
    ) -> None:  # fmt: skip
        """`on_changed` hears that what is held changed."""
        self._marks = marks
        self._holds = holds
        self._replica = replica
        self._new_event_id = new_event_id
        self._clock = clock
        self._on_changed = on_changed
        self._log = log
        self._queue: asyncio.Queue[CommandRecord] = asyncio.Queue()
        self._done: dict[str, float] = {}

    def put(self, commands: Iterable[CommandRecord]) -> None:
        """Take commands; those that are known or expired are passed over when their turn comes."""
        for command in commands:
            self._queue.put_nowait(command)

    async def run(self) -> None:
        """Carry out until cancelled."""
        self._done = await self._marks.load(self._clock())
        while True:
            command = await self._queue.get()
            if not await self._carry_out(command):
                await asyncio.sleep(_AGAIN_SECONDS)
                self._queue.put_nowait(command)

    async def _carry_out(self, command: CommandRecord) -> bool:
        """Carry one out if that is still to be done; False: the spool does not take it now."""
        now = self._clock()
        if command.id in self._done or command.expires_at.timestamp() <= now:
            return True
        try:
            changed = await self._change(command)
            await self._marks.answer(command.id, command.expires_at.timestamp(), self._answer(command, changed, now), now)
        except SpoolBroken:
            raise
        except Refusal as refusal:
            self._log.warning("command_waits", command=command.id, why=refusal.private or refusal.public)
            return False
        self._done[command.id] = command.expires_at.timestamp()
        self._log.info("commanded", command=command.id, kind=command.command.value, changed=changed)
        if changed:
            self._on_changed()
        return True

    async def _change(self, command: CommandRecord) -> int:
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

    def _answer(self, command: CommandRecord, changed: int, now: float) -> bytes:
        return msgspec.json.encode(
            Event(
                id=self._new_event_id(),
                kind=EventKind.COMMANDED,
                at=datetime.fromtimestamp(now, UTC),
                account=command.selector.account or "",
                command=command.id,
                changed=changed,
            )
        )
