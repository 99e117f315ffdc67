"""One SMTP session over one TCP connection: our own buffer, one waiter, deadlines for whole replies.

Moves octets between the transport and `wire.client`; knows neither routes nor mail transactions. Invariants: the buffer is
bounded by the reader's limits; after `SessionError` nothing is sent any more; nothing that arrived before the TLS handshake
is read after it (K2).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from postbud.egress.tls import HANDSHAKE_ERRORS, describe
from postbud.model.outcome import Peer, Reply
from postbud.wire.client import Client, Stage
from postbud.wire.extensions import Extensions
from postbud.wire.reply import ReplyError

HIGH_WATER_OCTETS = 256 * 1024


class SessionError(Exception):
    """The session is over: closed, timed out, or the peer broke the protocol. `reply` is a 421 that ended it."""

    def __init__(self, why: str, enhanced: str, reply: Reply | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.enhanced = enhanced
        self.reply = reply


class TlsError(SessionError):
    """The TLS handshake failed."""


class Session(asyncio.Protocol):
    """The protocol object of the connection."""

    def __init__(self, peer: Peer) -> None:
        self.client = Client()
        self.peer = peer
        self.extensions = Extensions()
        self.verified = False  # TLS is on and the certificate was checked
        self.lost = False
        self.replies: list[tuple[Stage, Reply]] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._error: SessionError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._on_reply: Callable[[Stage, Reply], bool] | None = None
        self._ready = False  # the waiter has what it waits for
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- asyncio's side ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; again when TLS has taken over."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=HIGH_WATER_OCTETS)

    def data_received(self, data: bytes) -> None:
        """Parse what came; wake the waiter when what it waits for is complete."""
        client = self.client
        replies = client.receive(data)
        if replies:
            self._heard_at = self._loop.time()
        for stage, reply in replies:
            if self._on_reply is None:
                self.replies.append((stage, reply))
            else:
                self._ready = self._on_reply(stage, reply)
        if self._ready:
            self._wake()  # whatever follows: what was answered is answered
        if client.broken is not None:
            self._fail(SessionError(f"the peer broke the protocol: {client.broken.why}", client.broken.enhanced))
        elif client.closing and client.awaited is not None and replies:
            last = replies[-1][1]
            self._fail(SessionError(f"the peer closed the session: {last.text}", "4.3.2", last))

    def eof_received(self) -> None:
        """Treat a half-closed connection as closed."""
        self._fail(SessionError("the peer closed the connection", "4.4.2"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self.lost = True
        what = "the connection was lost" if exc is not None else "the peer closed the connection"
        self._fail(SessionError(what, "4.4.2"))

    def pause_writing(self) -> None:
        """Note that the peer is slower than we are."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let the writer go on."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _fail(self, error: SessionError) -> None:
        if self._error is None:
            self._error = error
            self.client.note(error.why)
            if self._transport is not None:
                self._transport.abort()
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- our side ----------------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another command may be sent."""
        return self._error is None and not self.client.closing and self.client.quiet

    @property
    def failed(self) -> SessionError | None:
        """What ended the session."""
        return self._error

    def check(self) -> None:
        """Raise what ended the session, if anything did."""
        if self._error is not None:
            raise self._error

    def write(self, line: bytes, *stages: Stage, shown: str | None = None) -> None:
        """Send a command or a group of them.

        Raises:
            SessionError: The session is over, or the peer spoke out of turn.
        """
        self.check()
        assert self._transport is not None
        try:
            self._transport.write(self.client.send(line, *stages, shown=shown))
        except ReplyError as error:
            self._fail(SessionError(f"the peer broke the protocol: {error.why}", error.enhanced))
            self.check()

    async def wait(self, seconds: float, on_reply: Callable[[Stage, Reply], bool]) -> None:
        """Wait until `on_reply`, called for each reply, says that it is enough.

        `seconds` is a deadline for each whole reply; octets that complete none do not extend it (K3).

        Raises:
            SessionError: The session ended first.
        """
        self._on_reply = on_reply
        self._ready = False
        self._heard_at = self._loop.time()
        try:
            while self.replies and not self._ready:
                self._ready = on_reply(*self.replies.pop(0))
            if not self._ready:
                await self._sleep(seconds)
        finally:
            self._on_reply = None
            self._ready = False

    async def _sleep(self, seconds: float) -> None:
        self.check()
        self._waiter = waiter = self._loop.create_future()
        self._timer = self._loop.call_later(seconds, self._expire, seconds)
        try:
            await waiter
        finally:
            self._timer.cancel()
            self._waiter = None
        if not self._ready:
            self.check()

    def _expire(self, seconds: float) -> None:
        left = self._heard_at + seconds - self._loop.time()
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._expire, seconds)
            return
        stage = self.client.awaited
        self._fail(SessionError(f"no reply to {stage.title if stage else 'us'} within {seconds:g} s", "4.4.2"))

    async def ask(self, line: bytes, stage: Stage, seconds: float, *, shown: str | None = None) -> Reply:
        """Send one command, give its reply.

        Raises:
            SessionError: The session ended first.
        """
        self.write(line, stage, shown=shown)
        return await self.answer(seconds)

    async def answer(self, seconds: float) -> Reply:
        """Give the next reply.

        Raises:
            SessionError: The session ended first.
        """
        got: list[Reply] = []

        def take(_: Stage, reply: Reply) -> bool:
            got.append(reply)
            return True

        await self.wait(seconds, take)
        return got[0]

    def begin_content(self, octets: int) -> None:
        """Note that content goes out in chunks; the reply to its end may come early.

        Raises:
            SessionError: The session is over, or the peer spoke out of turn.
        """
        self.write(b"", Stage.END, shown=f"content of {octets} octets")

    def write_content(self, octets: bytes) -> None:
        """Send content octets; `drain` before the next.

        Raises:
            SessionError: The session is over.
        """
        self.check()
        assert self._transport is not None
        self._transport.write(octets)

    async def drain(self, seconds: float) -> None:
        """Wait until the peer takes more.

        Raises:
            SessionError: It did not in time, or the session ended.
        """
        drained = self._drained
        if drained is not None:
            timer = self._loop.call_later(seconds, self._stalled, seconds)
            try:
                await drained
            finally:
                timer.cancel()
        self.check()

    def _stalled(self, seconds: float) -> None:
        self._fail(SessionError(f"the peer took no octets within {seconds:g} s", "4.4.2"))

    async def start_tls(self, context: ssl.SSLContext, host: str, seconds: float, *, verified: bool) -> None:
        """Turn the connection into TLS, after the 220 to STARTTLS.

        Raises:
            SessionError: Octets came before the handshake (K2).
            TlsError: The handshake failed.
        """
        self.check()
        assert self._transport is not None
        if not self.client.quiet or self.replies:
            self._fail(SessionError("the peer sent octets before the TLS handshake", "4.7.5"))
            self.check()
        plain = self._transport
        try:
            secured = await self._loop.start_tls(plain, self, context, server_hostname=host, ssl_handshake_timeout=seconds)
        except HANDSHAKE_ERRORS as error:
            plain.abort()
            failure = TlsError(f"TLS handshake failed: {_reason(error)}", "4.7.5")
            self._error = failure
            self.client.note(failure.why)
            raise failure from error
        self.check()
        assert secured is not None
        self.connection_made(secured)
        session = secured.get_extra_info("ssl_object")
        self.verified = verified
        self.peer = Peer(
            self.peer.host, self.peer.address, self.peer.site, self.peer.source, describe(session, verified=verified)
        )
        self.client.note(self.peer.tls)
        if not self.client.quiet or self.replies:
            self._fail(SessionError("the peer spoke before us inside TLS", "4.7.5"))
            self.check()

    def close(self) -> None:
        """Close in good order, after QUIT."""
        self._error = self._error or SessionError("we closed the connection", "4.4.2")
        if self._transport is not None:
            self._transport.close()

    def hang_up(self) -> None:
        """Drop the connection, but keep the replies that are there for the one who waits next."""
        self._error = self._error or SessionError("we closed the connection", "4.4.2")
        if self._transport is not None:
            self._transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self._fail(SessionError("we closed the connection", "4.4.2"))


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return str(error) or type(error).__name__
