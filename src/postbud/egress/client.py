"""A connection to a next hop, as delivery uses it: one message after another, each with an outcome per recipient.

Splits recipients as the peer wants them (LIMITS, 452), tries with less when the peer refuses what it offered, dials anew
when a session that idled turns out dead, and turns every trouble of the peer into outcomes. A message is unknown
(`unknown_after_dot`) exactly when its final dot was written and no reply to it came (P2).
Rows 34 to 39, 45, 46.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from postbud.egress.dial import Dialer
from postbud.egress.routing import Routing
from postbud.egress.session import Session, SessionError
from postbud.egress.settings import Timers
from postbud.egress.transaction import RecipientLine, Transaction
from postbud.model.outcome import Bounced, Deferred, Outcome, Peer, Reply, Scope
from postbud.model.refusal import Refusal
from postbud.wire.client import Stage
from postbud.wire.extensions import Extensions
from postbud.wire.mailing import Mailing, Step, obstacle, split
from postbud.wire.stuffing import FINAL_DOT, ContentError, Stuffer, stuff

CHUNK_OCTETS = 128 * 1024
BeforeMail = Callable[[], None] | None
BeforeDot = Callable[[], Awaitable[None]] | None


class Connection:
    """An open SMTP session with a next hop, ready for MAIL."""

    def __init__(self, session: Session, routing: Routing, dialer: Dialer, timers: Timers) -> None:
        self.transactions = 0
        self._session = session
        self._routing = routing
        self._dialer = dialer
        self._timers = timers
        self._offered: Extensions = session.extensions
        self._in_session = 0
        self._dot_sent = False

    @property
    def peer(self) -> Peer:
        """Whom we speak to; another address after a new dial."""
        return self._session.peer

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin here without a new dial."""
        room = min(self._routing.limits.messages_per_connection, self._offered.limits.get("MAILMAX", 1_000_000))
        return self._session.usable and self._in_session < room

    def offers(self, keyword: str) -> bool:
        """Tell whether the peer's EHLO named a keyword, in upper case."""
        return keyword in self._offered.words

    async def deliver(
        self, transaction: Transaction, *, before_mail: BeforeMail = None, before_dot: BeforeDot = None
    ) -> list[Outcome]:
        """Send one message; give one outcome per recipient, in their order.

        `before_mail` is called just before MAIL goes out, `before_dot` awaited just before the final dot does. Both again for
        each part when the recipients must be split.

        Raises:
            Refusal: From `before_mail`, before anything was sent; the connection stays usable.
        """
        outcomes: dict[int, Outcome] = {}
        places = list(range(len(transaction.recipients)))
        while places:
            try:
                outcomes.update(await self._some(transaction, places, before_mail, before_dot))
            except Refusal as refusal:
                if not outcomes:
                    raise
                stop = Deferred(refusal.public, "4.7.1", Scope.MESSAGE, peer=self.peer)
                outcomes.update(dict.fromkeys(places, stop))
            places = [at for at in places if at not in outcomes]
        return [outcomes[at] for at in sorted(outcomes)]

    async def quit(self) -> None:
        """Say QUIT and close. Never raises for trouble of the peer; safe on a dead connection."""
        session = self._session
        if session.usable:
            try:
                await session.ask(b"QUIT\r\n", Stage.QUIT, self._timers.quit)
            except SessionError:
                return
            session.close()
        else:
            session.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._session.abort()

    # -- one part of the recipients ------------------------------------------------------------------------------------------

    async def _some(
        self, transaction: Transaction, places: list[int], before_mail: BeforeMail, before_dot: BeforeDot
    ) -> dict[int, Outcome]:
        """Settle at least one of the recipients at `places`, or make the offer smaller."""
        cause: Outcome | None = await self._prepare(transaction)
        if cause is not None:
            return dict.fromkeys(places, cause)
        chosen = split(places, transaction, self._offered, self._routing.limits.recipients_per_transaction)
        if before_mail is not None:
            before_mail()
        reused = self._in_session > 0
        recipients = tuple(transaction.recipients[at] for at in chosen)
        mailing, cause = await self._round(transaction, recipients, before_dot)
        if reused and mailing.unheard and not isinstance(cause, Bounced):  # it had died while it idled
            again = await self._redial()
            return {} if again is None else dict.fromkeys(places, again)
        if isinstance(cause, Deferred):
            rest: dict[int, Outcome] = dict.fromkeys(places, cause)
            return rest | dict(zip(chosen, mailing.interrupted(cause), strict=True))
        if isinstance(cause, Bounced):
            return dict.fromkeys(places, cause)
        return await self._conclude(mailing, chosen)

    async def _conclude(self, mailing: Mailing, chosen: list[int]) -> dict[int, Outcome]:
        transcript = "" if mailing.all_delivered else self._session.client.transcript()
        outcomes = dict(zip(chosen, mailing.outcomes(self.peer, transcript), strict=True))
        if mailing.delivered:
            for at in mailing.too_many():
                del outcomes[chosen[at]]  # in the next part
        smaller = mailing.fallback()
        fit = mailing.complete or await self._reset()
        if smaller is None or not (fit and self.usable):  # a new dial would bring the old offer back
            return outcomes
        self._offered = smaller
        return {}

    async def _prepare(self, transaction: Transaction) -> Deferred | Bounced | None:
        """Make the session fit for a message; say why it cannot be sent here."""
        if not self.usable:
            failed = await self._redial()
            if failed is not None:
                return failed
        trusted = self._routing.route is not None and self._routing.route.trusted
        if transaction.require_tls and not trusted:
            if not self._session.verified:
                if not self._session.peer.tls and not self.offers("STARTTLS"):
                    return self._no_require_tls()
                failed = await self._redial(verified=True)
                if failed is not None:
                    return failed
            if not self.offers("REQUIRETLS"):
                return self._no_require_tls()
        hit = obstacle(transaction, self._offered)
        return Bounced(hit[0], hit[1], Scope.MESSAGE, peer=self.peer) if hit else None

    def _no_require_tls(self) -> Bounced:
        return Bounced("message needs REQUIRETLS, which the next hop does not offer", "5.7.30", Scope.MESSAGE, peer=self.peer)

    async def _redial(self, *, verified: bool = False) -> Deferred | Bounced | None:
        opened = await self._dialer.open(self._routing, verified=verified or self._session.verified)
        if not isinstance(opened, Session):
            return opened
        await self.quit()
        self._session, self._offered, self._in_session = opened, opened.extensions, 0
        return None

    async def _reset(self) -> bool:
        """End a transaction that was begun and came to nothing. False: the session is of no use any more."""
        if not self._session.usable:
            return False
        try:
            reply = await self._session.ask(b"RSET\r\n", Stage.RSET, self._timers.command)
        except SessionError:
            return False
        if reply.code >= 300:
            self._session.abort()
        return reply.code < 300

    # -- one transaction -----------------------------------------------------------------------------------------------------

    async def _round(
        self, transaction: Transaction, recipients: tuple[RecipientLine, ...], before_dot: BeforeDot
    ) -> tuple[Mailing, Deferred | Bounced | None]:
        session = self._session
        session.client.begin_transaction()
        self._dot_sent = False
        mailing = Mailing(transaction, recipients, self._offered)
        body = transaction.body
        try:
            content = (
                stuff(transaction.prepended, transaction.header, b"\r\n", body, final=True) if isinstance(body, bytes) else None
            )
            self._in_session += 1
            self.transactions += 1
            await self._converse(session, mailing, transaction, content, before_dot)
        except SessionError as error:
            session.abort()
            return mailing, self._deferred(session, error.why, error.enhanced, error.reply)
        except ContentError as error:
            if not isinstance(body, bytes):
                session.abort()  # part of it is on the wire; without the final dot it is nothing
            return mailing, Bounced(str(error), "5.6.0", Scope.MESSAGE, peer=session.peer)
        except OSError as error:
            session.abort()
            return mailing, self._deferred(session, f"content cannot be read: {error.strerror}", "4.3.0", None, Scope.MESSAGE)
        except BaseException:
            session.abort()
            raise
        return mailing, None

    def _deferred(
        self, session: Session, why: str, enhanced: str, reply: Reply | None = None, scope: Scope = Scope.SITE
    ) -> Deferred:
        name, transcript = session.peer.host or session.peer.address, session.client.transcript()
        return Deferred(f"{name}: {why}", enhanced, scope, reply, session.peer, transcript, unknown_after_dot=self._dot_sent)

    async def _converse(
        self, session: Session, mailing: Mailing, transaction: Transaction, content: bytes | None, before_dot: BeforeDot
    ) -> None:
        step = Step.WAIT

        def take(stage: Stage, reply: Reply) -> bool:
            nonlocal step
            step = mailing.answered(stage, reply)
            return step is not Step.WAIT

        line, stages = mailing.begin()
        session.write(line, *stages)
        seconds = self._timers.command
        while True:
            await session.wait(seconds, take)
            match step:
                case Step.DONE | Step.WAIT:
                    return
                case Step.SEND:
                    line, stages = mailing.take()
                    session.write(line, *stages)
                    seconds = self._timers.data if stages[0] is Stage.DATA else self._timers.command
                    continue
                case Step.EMPTY:
                    session.write(FINAL_DOT, Stage.END)
                case Step.CONTENT if content is not None:
                    if before_dot is not None:
                        await before_dot()
                    session.write(content, Stage.END, shown=f"content of {transaction.octets} octets and the final dot")
                    self._dot_sent = True
                case Step.CONTENT:
                    await self._stream(session, transaction, before_dot)
            seconds = self._timers.end

    async def _stream(self, session: Session, transaction: Transaction, before_dot: BeforeDot) -> None:
        """Send a content whose body is a file, a chunk at a time; memory stays bounded whatever its size."""
        assert not isinstance(transaction.body, bytes)
        stuffer = Stuffer()
        session.begin_content(transaction.octets)
        file: BinaryIO = await asyncio.to_thread(transaction.body.open, "rb")
        try:
            async with asyncio.timeout(self._timers.content):
                chunk = stuffer.feed(transaction.prepended + transaction.header + b"\r\n")
                while chunk:
                    session.write_content(chunk)
                    await session.drain(self._timers.block)
                    if session.replies:
                        self._early(session)
                        return
                    chunk = await asyncio.to_thread(_read, file, stuffer)
        except TimeoutError:
            raise SessionError(f"the content was not taken within {self._timers.content:g} s", "4.4.2") from None
        finally:
            file.close()
        rest = stuffer.finish()
        if before_dot is not None:
            await before_dot()
        session.write_content(rest + FINAL_DOT)
        session.client.note("the final dot")
        self._dot_sent = True

    def _early(self, session: Session) -> None:
        """Judge a reply that came before the content's end: a no stands, and the session cannot go on."""
        if session.replies[0][1].code < 400:
            raise SessionError("the peer broke the protocol: a yes before the final dot", "4.5.0")
        session.hang_up()


def _read(file: BinaryIO, stuffer: Stuffer) -> bytes:
    octets = file.read(CHUNK_OCTETS)
    return stuffer.feed(octets) if octets else b""
