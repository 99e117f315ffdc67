"""Stages 5 and 6 for one batch: content, status, signature, the transaction, and the commit of what it came to.

A result that is known is never thrown away: while the spool cannot take it, the lease stays and the commit is tried again,
since delivering anew would be a duplicate of our own making (P2).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postbud.delivery.cache import ContentCache
from postbud.delivery.held import HeldOctets
from postbud.delivery.keeping import Keeping
from postbud.delivery.lane import Active
from postbud.delivery.notify import Notifier
from postbud.delivery.record import Change, Recorder
from postbud.delivery.signing import KeyMissingError, Signer
from postbud.egress.client import Connection
from postbud.egress.transaction import RecipientLine, Transaction
from postbud.link.replica import Replica
from postbud.mime.body import scan_body
from postbud.mime.transfer import to_quoted_printable
from postbud.model.account import SYSTEM_ACCOUNT, Status
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Hold, Message, State
from postbud.model.event import EventKind
from postbud.model.outcome import Bounced, Deferred, Outcome
from postbud.model.refusal import Refusal, Why
from postbud.shaping.holding import hold
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Damaged, SpoolBroken, Unknown
from postbud.telemetry.logs import Log

_SETTLE_RETRY_SECONDS = 1.0
_SETTLED_AT_ONCE = 16  # messages whose results share commits


@dataclass(slots=True)
class DeliveryCounters:
    """What was recorded since the worker started."""

    attempts: int = 0
    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    expired: int = 0
    held: int = 0
    notices: int = 0


class Attempts:
    """Runs attempts on connections that the scheduler gives it."""

    def __init__(
        self,
        spool: Spool,
        replica: Replica,
        signer: Signer,
        recorder: Recorder,
        notifier: Notifier,
        cache: ContentCache,
        admit: Callable[[Message, Sequence[Delivery]], None],
        clock: Callable[[], float],
        counters: DeliveryCounters,
        held: HeldOctets,
        log: Log,
        keeping: Keeping | None = None,
    ) -> None:
        """`keeping` is given each content of which a delivery ends, before that is recorded."""
        self._keeping = keeping
        self._spool = spool
        self._replica = replica
        self._signer = signer
        self._recorder = recorder
        self._notifier = notifier
        self._cache = cache
        self._admit = admit
        self._clock = clock
        self._counters = counters
        self._held = held
        self._log = log

    async def run(self, connection: Connection, batch: list[Active]) -> list[Outcome]:
        """Attempt a batch: deliveries of one message with one reverse-path. Gives the outcomes when they are recorded.

        Empty when nothing was sent: held, or the content is lost.
        """
        message = batch[0].message
        held_by = self.standing(message)
        if held_by is not None:
            await self.hold(batch, held_by, "sending is stopped for this account, server or credential")
            return []
        try:
            content, cached = await self.content(message)
            fields, signatures = await self._signer.sign(message, content, cached)
            sent, fields = await self._fit(connection, message, content, fields)
        except (Damaged, Unknown) as error:
            self._log.error("content_lost", message=message.id, why=str(error))
            for active in batch:  # quarantined with its event by the spool
                active.cancelled = True
            return []
        except KeyMissingError as error:
            await self.hold(batch, Hold.KEY, str(error))
            self._log.error("key_missing", message=message.id, domain=message.from_domain, why=str(error))
            return []
        transaction = self._transaction(message, batch, sent, fields)
        self._counters.attempts += 1
        for active in batch:
            self._spool.in_flight.enter(active.delivery.id)
        try:
            outcomes = await connection.deliver(transaction, before_mail=lambda: self._check(message))
        except Refusal as refusal:
            if refusal.why not in (Why.BLOCKED, Why.PAUSED):
                raise
            await self.hold(batch, Hold.BLOCK if refusal.why is Why.BLOCKED else Hold.PAUSE, refusal.public)
            return []
        finally:
            for active in batch:
                self._spool.in_flight.leave(active.delivery.id)
        await self._settle(message, batch, outcomes, content, signatures)
        return outcomes

    async def settle_unsent(self, batches: list[list[Active]], outcome: Deferred | Bounced) -> None:
        """Record an outcome that came before any transaction: no route, no connection.

        Half of the time is left to others: such records may be many, and none of them is urgent.
        """
        loop = asyncio.get_running_loop()
        for start in range(0, len(batches), _SETTLED_AT_ONCE):
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                for batch in batches[start : start + _SETTLED_AT_ONCE]:
                    group.create_task(self._settle(batch[0].message, batch, [outcome] * len(batch), None, None))
            if start + _SETTLED_AT_ONCE < len(batches):
                await asyncio.sleep(loop.time() - began)

    async def hold(self, batch: list[Active], holder: Hold, reason: str) -> None:
        """Put deliveries on hold, with their events, in one commit."""
        now = self._clock()
        changed = [active for active in batch if hold(active.delivery, holder, now)]
        if not changed:
            return
        events = [
            self._recorder.note(EventKind.HELD, active.message, active.delivery, reason, hold=holder.value)
            for active in changed
        ]
        await self.commit(Batch(updates=[active.delivery for active in changed], events=events))
        self._counters.held += len(changed)
        self._held.add(changed[0].message)

    # -- parts ------------------------------------------------------------------------------------------------------------

    def standing(self, message: Message) -> Hold | None:
        """Tell who holds a message's mail: the last look at the status, just before it goes out."""
        if message.account == SYSTEM_ACCOUNT:
            return None
        match self._replica.directory.standing(message.account, message.server, message.credential):
            case Status.ACTIVE:
                return None
            case Status.PAUSED:
                return Hold.PAUSE
            case Status.BLOCKED | Status.REVOKED:
                return Hold.BLOCK

    def _check(self, message: Message) -> None:
        """Status, the last of its four places: just before MAIL goes out."""
        holder = self.standing(message)
        if holder is not None:
            raise Refusal(Why.PAUSED if holder is Hold.PAUSE else Why.BLOCKED, "sending was stopped")

    async def content(self, message: Message) -> tuple[Content, bytes | None]:
        """Give a message's content and the signatures cached with it.

        Raises:
            Damaged, Unknown: As the spool.
        """
        fresh = self._cache.take(message.id)
        if fresh is not None:
            return fresh, None
        stored = await self._spool.content(message.id)
        return stored.content, stored.signatures

    async def _fit(self, connection: Connection, message: Message, content: Content, fields: bytes) -> tuple[Content, bytes]:
        """Re-encode 8-bit content for a next hop without 8BITMIME, and sign what is then sent."""
        if not content.facts.eight_bit or connection.offers("8BITMIME"):
            return content, fields
        encoded = await asyncio.to_thread(_seven_bit, content)
        if encoded is None:
            return content, fields  # the connection bounces it with 5.6.3
        fields, _ = await self._signer.sign(message, encoded, None)
        return encoded, fields

    def _transaction(self, message: Message, batch: list[Active], content: Content, fields: bytes) -> Transaction:
        wire_path = batch[0].delivery.reverse_path
        return Transaction(
            reverse_path=message.reverse_path if wire_path is None else wire_path,
            recipients=tuple(
                RecipientLine(active.delivery.mailbox, active.delivery.notify, active.delivery.orcpt) for active in batch
            ),
            prepended=fields,
            header=content.header,
            body=content.body,
            octets=content.octets + len(fields),
            eight_bit=content.facts.eight_bit,
            smtputf8=message.smtputf8 or not batch[0].delivery.mailbox.isascii(),
            require_tls=message.require_tls,
            ret_full=message.ret_full,
            envid=message.envid,
        )

    async def _settle(
        self,
        message: Message,
        batch: list[Active],
        outcomes: Sequence[Outcome],
        content: Content | None,
        signatures: bytes | None,
    ) -> None:
        changes = [
            self._recorder.apply(message, active.delivery, outcome) for active, outcome in zip(batch, outcomes, strict=True)
        ]
        if self._keeping is not None and self._keeping.wants(message) and _some_end(changes):
            content = content if content is not None else await self._content_or_none(message)
            if content is not None:
                await self._keeping.copy(message, content)
        if any(change.notice for change in changes):
            content = content if content is not None else await self._content_or_none(message)
            content = await self._notifier.returnable(message, content, changes)
        reports, report_events = self._notifier.reports(message, content, changes)
        remains = any(change.delivery.state is State.QUEUED for change in changes)
        await self.commit(
            Batch(
                messages=reports,
                updates=[change.delivery for change in changes],
                signatures=[(message.id, signatures)] if signatures is not None and remains else [],
                events=[change.event for change in changes] + report_events,
            )
        )
        for active in batch:
            active.recorded = True
        for report in reports:
            self._cache.remember(report.message.id, report.content)
            self._admit(report.message, report.deliveries)
        self._count(message, changes, len(reports))

    async def _content_or_none(self, message: Message) -> Content | None:
        try:
            content, _ = await self.content(message)
        except (Damaged, Unknown):
            return None
        return content

    async def commit(self, batch: Batch) -> None:
        """Record a result, however long the spool does not take it."""
        while True:
            try:
                await self._spool.commit(batch)
                return
            except SpoolBroken:
                raise
            except Refusal as refusal:
                self._log.error("settle_waits", why=refusal.private or refusal.public)
                await asyncio.sleep(_SETTLE_RETRY_SECONDS)

    def _count(self, message: Message, changes: list[Change], reports: int) -> None:
        self._counters.notices += reports
        for change in changes:
            event = change.event
            name = event.kind.value
            setattr(self._counters, name, getattr(self._counters, name) + 1)
            self._log.info(
                name, message=message.id, delivery=change.delivery.id, account=message.account,
                recipient_domain=change.delivery.domain, attempt=change.delivery.attempts, reply=event.reply or event.reason,
                host=event.host, address=event.address, tls=event.tls, latency_seconds=event.latency_seconds,
            )  # fmt: skip


def _some_end(changes: Sequence[Change]) -> bool:
    return any(change.delivery.state is not State.QUEUED for change in changes)


def _seven_bit(content: Content) -> Content | None:
    body = content.body if isinstance(content.body, bytes) else content.body.read_bytes()
    encoded = to_quoted_printable(content.header, body, seven_bit=True)
    return Content(encoded[0], encoded[1], scan_body(encoded[1])) if encoded is not None else None
