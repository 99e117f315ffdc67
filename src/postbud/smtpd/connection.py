"""One connection: an asyncio Protocol around `wire.server` that reads, writes, watches the clock and closes; no gate, no mail.

Reads octets, pulls events, hands them to the session that inherits from it. While something takes time (`_begin`) the
connection is *busy*: it reads into a bounded buffer and pulls nothing. Own buffer, never streams: what arrived in clear behind
STARTTLS can then never be read as if it had come through TLS (row C1); inside TLS another object, `TlsSide`, is what asyncio
calls.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import cast

from postbud.smtpd import replies
from postbud.smtpd.sessions import Sessions
from postbud.wire.events import Event
from postbud.wire.server import ServerConnection, State

_MAX_UNREAD = 65_536  # while busy
_MAX_UNSENT = 65_536  # replies that a peer does not read


class Connection(asyncio.Protocol, ABC):
    """Everything about a connection but what is said on it."""

    def __init__(self, wire: ServerConnection, sessions: Sessions) -> None:
        self._wire = wire
        self._sessions = sessions
        self._counters = sessions.counters
        self._limits = sessions.limits
        self._loop = asyncio.get_running_loop()
        self.made = False
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._blocked = False  # the peer does not read our replies
        self._paused = False
        self._over = False  # the last reply is on its way
        self._lost = False
        self._eof = False
        self._draining = False
        self._deadline = 0.0
        self._received = 0
        self._window_at = 0.0
        self._window_received = 0
        self._content_ends_at = 0.0

    # what a session adds

    @abstractmethod
    def _begun(self) -> None:
        """Take note that there is a transport."""

    @abstractmethod
    def _ended(self) -> None:
        """Take note that there is none any more."""

    @abstractmethod
    def recheck(self) -> None:
        """Ask again whether the identity may send."""

    @abstractmethod
    def _answer(self, event: Event) -> None:
        """Answer an event, or begin work that will."""

    @abstractmethod
    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        """Await work; whatever it raises becomes a reply."""

    @abstractmethod
    def _spoil(self) -> None:
        """Throw away the content that is being read: it will be refused."""

    @abstractmethod
    def _discard(self) -> None:
        """Forget the open transaction."""

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self.made = True
        self._take_transport(cast("asyncio.Transport", transport))  # uvloop's are not of asyncio's class
        self._begun()
        self._sessions.add(self)
        self._wire.greet()
        self._draining = self._sessions.draining
        self._settle()

    def data_received(self, data: bytes) -> None:
        """Take octets and answer what they say."""
        if self._over:
            return
        self._received += len(data)
        self._wire.feed(data)
        if not self._busy:
            self._pump()
        elif self._wire.unread > _MAX_UNREAD:
            self._pace()

    def eof_received(self) -> bool | None:
        """Answer what was asked before the peer went silent, then close."""
        self._eof = True
        return True if self._busy and not self._over and not self._wire.tls else None

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._blocked = True
        self._pace()

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = False
        if not self._busy and not self._over:
            self._pump()
        self._pace()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Forget everything that was not complete."""
        if self._lost:
            return
        self._lost = self._over = True
        self._sessions.remove(self)
        self._ended()
        if not self._busy:
            self._discard()

    # what the registry calls

    def sweep(self, now: float) -> None:
        """Close when a deadline has passed."""
        if self._over:
            if now >= self._deadline:
                self.drop()
        elif self._blocked:
            if now >= self._deadline:
                self._counters.timeouts += 1
                self.drop()
        elif self._busy:
            self._window_at = 0.0
        elif self._wire.state is State.CONTENT:
            self._check_rate(now)
        elif now >= self._deadline:
            self._counters.timeouts += 1
            self._terminate(replies.IDLE)

    def drain(self) -> None:
        """Say goodbye as soon as no transaction is open."""
        self._draining = True
        if not self._over:
            self._settle()

    def dismiss(self) -> None:
        """Say goodbye now, whatever is open."""
        if not self._over:
            self._terminate(replies.SHUTTING_DOWN)

    def drop(self) -> None:
        """Cut the connection."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    # the loop

    def _pump(self) -> None:
        wire = self._wire
        while not self._busy and not self._blocked:
            event = wire.next_event()
            if event is None:
                break
            self._answer(event)
        if wire.content_flaw is not None:
            self._spoil()
        self._settle()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._busy = True
        self._sessions.tasks.create_task(self._run(work))

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await self._guard(work)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        if self._lost:
            self._discard()
        elif not self._over:
            self._pump()
            self._pace()

    def _watch_content(self) -> None:
        """Begin to measure how fast content comes."""
        now = self._loop.time()
        self._window_at, self._window_received = now, self._received
        self._content_ends_at = now + self._limits.content_seconds

    # reading, writing, closing

    def _take_transport(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_MAX_UNSENT)
        self._deadline = self._loop.time() + self._limits.command_seconds

    def _settle(self) -> None:
        """After events: send, and close when that is what remains."""
        if self._over:
            return
        if not self._busy and not self._wire.closed and not self._wire.in_transaction:
            if self._draining:
                self._wire.terminate(replies.SHUTTING_DOWN)
            elif self._eof and not self._blocked:
                self._flush()
                self._hang_up()
                return
        self._flush()
        if self._wire.closed and not self._busy:
            self._hang_up()

    def _terminate(self, reply: bytes) -> None:
        """Say a last reply and close, whatever was going on."""
        self._wire.terminate(reply)
        self._flush()
        self._hang_up()

    def _flush(self) -> None:
        octets = self._wire.take()
        if octets and self._transport is not None and not self._transport.is_closing():
            self._deadline = self._loop.time() + self._limits.command_seconds
            self._transport.write(octets)

    def _hang_up(self) -> None:
        """Close, but read on for a moment: closing a socket with unread octets would destroy our last reply."""
        if self._over:
            return
        self._over = True
        self._deadline = self._loop.time() + self._limits.linger_seconds
        if not self._busy:
            self._discard()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._wire.tls or self._eof:
            transport.close()
            return
        self._pace()
        transport.write_eof()

    def _pace(self) -> None:
        """Read only as fast as we can work and the peer reads; nothing at all between STARTTLS and the handshake."""
        transport, state = self._transport, self._wire.state
        waits = state is State.TLS or (self._busy and (state is State.CONTENT or self._wire.unread > _MAX_UNREAD))
        wanted = (self._blocked or waits) and not self._over
        if transport is None or transport.is_closing() or wanted == self._paused:
            return
        self._paused = wanted
        if wanted:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _check_rate(self, now: float) -> None:
        if now >= self._content_ends_at:
            self._counters.timeouts += 1
            self._terminate(replies.TOO_SLOW)
            return
        if not self._window_at:
            self._window_at, self._window_received = now, self._received
        elapsed = now - self._window_at
        if elapsed < self._limits.content_window_seconds:
            return
        if self._received - self._window_received < elapsed * self._limits.content_octets_per_second:
            self._counters.timeouts += 1
            self._terminate(replies.TOO_SLOW)
            return
        self._window_at, self._window_received = now, self._received


class TlsSide(asyncio.Protocol):
    """What asyncio calls inside TLS. Holds octets until the handshake's caller has begun the session anew."""

    def __init__(self, session: Connection) -> None:
        self._session = session
        self._early: list[bytes] | None = []
        self._lost = False

    def open(self) -> None:
        """Let octets through from now on."""
        early, self._early = self._early or [], None
        for octets in early:
            self._session.data_received(octets)
        if self._lost:
            self._session.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        """Pass octets on, or hold them."""
        if self._early is None:
            self._session.data_received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._session.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._session.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._session.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, or hold it."""
        self._lost = True
        if self._early is None:
            self._session.connection_lost(exc)
