"""One SMTP session: what `wire.server` tells is asked of the gate, and the gate's answer said.

Reads top to bottom in the order of the journey: signing in, MAIL, RCPT, DATA, content, its end. Only finishing a message,
draining content, a held-back 535 and the TLS handshake take time. Whatever the gate raises that is no refusal is a bug: logged
with its traceback, the peer hears 451 4.3.0.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from postbud.model.envelope import Client
from postbud.model.refusal import Refusal, Why
from postbud.model.text import printable
from postbud.smtpd import replies
from postbud.smtpd.connection import Connection, TlsSide
from postbud.smtpd.gate import Gate, Identity
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import ListenerSettings, Role, TlsMode
from postbud.smtpd.transaction import Transaction
from postbud.wire.events import (
    Authenticate,
    ContentChunk,
    Data,
    EndOfData,
    Event,
    Mail,
    Rcpt,
    SecretExposed,
    ServerSettings,
    StartTls,
)
from postbud.wire.server import ServerConnection

_FLAW_TEXTS = {
    Why.TOO_BIG: "Message is too big",
    Why.BAD_CONTENT: "Content holds NUL",
    Why.BAD_LINE_ENDS: "Content holds bare CR or LF",
}


class Session(Connection):
    """One connection. `enter` and `leave` count it for the listener."""

    def __init__(
        self, settings: ListenerSettings, gate: Gate, context: ssl.SSLContext | None, sessions: Sessions,
        clock: Callable[[], datetime], address: str, port: int, key: str,
    ) -> None:  # fmt: skip
        """Take the listener's wiring; `key` is what the connection counts as (`address_key`)."""
        announced = ServerSettings(
            hostname=settings.hostname,
            size_limit_octets=gate.size_limit_octets,
            recipients_limit=gate.recipients_limit,
            auth=gate.requires_auth,
            auth_without_tls=settings.auth_without_tls,
            starttls=context is not None and settings.tls is TlsMode.STARTTLS,
            tls=settings.tls is TlsMode.IMPLICIT,
            strict_greeting=settings.role is Role.INBOUND,
        )
        super().__init__(ServerConnection(announced), sessions)
        self._settings = settings
        self._gate = gate
        self._context = context
        self._clock = clock
        self._address = address
        self._port = port
        self._key = key
        self._serial = 0
        self._tls: str | None = None
        self._identity: Identity | None = None
        self._transaction: Transaction | None = None
        self._auth_failures = 0
        self._held_back: asyncio.TimerHandle | None = None

    def _begun(self) -> None:
        if self._settings.tls is TlsMode.IMPLICIT:
            self._tls = _describe(self._transport)
            self._counters.tls_handshakes += 1
        self._counters.connections += 1
        self._serial = self._sessions.next_serial()

    def _ended(self) -> None:
        self._sessions.connections.leave(self._key)
        if self._held_back is not None:
            self._held_back.cancel()
            self._stop_holding_back()

    def recheck(self) -> None:
        """Ask again whether the identity may send."""
        if self._identity is None or self._over or self._busy or self._wire.in_transaction:
            return  # a transaction is asked at its next step anyway
        try:
            self._gate.check(self._identity)
        except Refusal as refusal:
            if not refusal.close:
                return  # paused: the session may stay, MAIL will hear it
            self._log_refusal(refusal)
            self._terminate(replies.NOT_ALLOWED_NOW)
        except Exception:
            self._sessions.log.exception("session_fault", **self._fields())
            self._recover()

    # events

    def _answer(self, event: Event) -> None:
        try:
            _HANDLERS[type(event)](self, event)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            self._sessions.log.exception("session_fault", **self._fields())
            self._recover()

    def _refuse(self, refusal: Refusal) -> None:
        self._log_refusal(refusal)
        if self._wire.awaits_answer:
            self._wire.refuse(replies.reply_of(refusal), close=replies.closes(refusal))
        elif self._transaction is not None:
            self._transaction.fail(refusal)

    def _recover(self) -> None:
        """Go on as well as can be after an exception that was logged."""
        self._counters.faults += 1
        if self._wire.awaits_answer:
            self._wire.refuse(replies.TRY_AGAIN)
        elif self._transaction is not None:
            self._transaction.fail(Refusal(Why.TEMPORARY, "Trouble on our side, try again later"))
        else:
            self._terminate(replies.TRY_AGAIN)

    def _on_mail(self, event: Mail) -> None:
        if self._identity is None and self._settings.ip_credentials:
            self._identity = self._gate.identify(self._address)
        identity = self._identity
        if identity is None and self._gate.requires_auth:
            raise Refusal(Why.AUTH_REQUIRED, "Sign in first")
        self._gate.check(identity)
        client = self._client(smtputf8=event.parameters.smtputf8)
        self._gate.mail(identity, client, event.reverse_path, event.parameters)
        self._transaction = Transaction(client, event.reverse_path, event.parameters)
        self._wire.accept()

    def _on_rcpt(self, event: Rcpt) -> None:
        transaction, recipient = self._current(), event.recipient
        self._gate.check(self._identity)
        if not transaction.has(recipient):
            if transaction.recipients >= self._gate.recipients_limit:
                raise Refusal(Why.TOO_MANY_RECIPIENTS, "Too many recipients, send the rest in another transaction")
            self._gate.rcpt(self._identity, transaction.client, recipient, transaction.recipients)
            transaction.add(recipient)
        self._wire.accept()

    def _on_data(self, _event: Data) -> None:
        transaction = self._current()
        transaction.writer = self._gate.open_content()
        self._watch_content()
        self._wire.accept(normalise=self._identity is not None and self._identity.normalise_line_ends)

    def _on_content(self, event: ContentChunk) -> None:
        transaction = self._current()
        transaction.write(event.octets)
        if transaction.writer is not None and transaction.writer.needs_drain:
            self._begin(self._drain_content(transaction))

    def _on_end_of_data(self, event: EndOfData) -> None:
        transaction = self._current()
        try:
            if event.flaw is not None:
                raise Refusal(event.flaw, _FLAW_TEXTS[event.flaw], close=True)
            if transaction.failed is not None:
                raise transaction.failed
            self._gate.check(self._identity)
        except BaseException:
            self._discard()
            raise
        self._begin(self._complete(transaction))

    def _on_authenticate(self, event: Authenticate) -> None:
        given, throttle = event.credentials, self._sessions.throttle
        if throttle.refuses(self._key, given.username, self._loop.time()):
            self._counters.auth_throttled += 1
            self._terminate(replies.TOO_MANY_FAILURES)
            return
        if throttle.busy:
            self._counters.auth_throttled += 1
            raise Refusal(Why.AUTH_BUSY, "Busy, try again later", "too many failures wait")
        try:
            if not given.plausible:
                raise Refusal(Why.AUTH_FAILED, "Authentication failed", "name or secret cannot be anybody's")
            self._identity = self._gate.authenticate(given.username, given.secret, self._client(smtputf8=False))
        except Refusal as refusal:
            if refusal.why is not Why.AUTH_FAILED:
                raise
            self._hold_back(refusal, given.username)
            return
        throttle.succeeded(self._key, given.username)
        self._counters.auth_succeeded += 1
        self._wire.accept()

    def _on_secret_exposed(self, event: SecretExposed) -> None:
        self._counters.secrets_exposed += 1
        self._sessions.log.warning("secret_exposed", username=printable(event.username), **self._fields())

    def _on_starttls(self, _event: StartTls) -> None:
        self._wire.accept()
        self._pace()  # before the 220 is sent: the peer's next octets are for the TLS layer alone
        self._begin(self._start_tls())

    # what takes time

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            self._sessions.log.exception("session_fault", **self._fields())
            self._recover()

    async def _drain_content(self, transaction: Transaction) -> None:
        self._pace()
        if transaction.writer is not None:
            await transaction.writer.drain()
        self._window_at, self._window_received = self._loop.time(), self._received

    async def _complete(self, transaction: Transaction) -> None:
        writer, octets = transaction.writer, transaction.octets
        if writer is None:
            raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", "content was discarded")
        try:
            content = await writer.finish()
            if self._lost:
                return
            text = await self._gate.accept(self._identity, transaction.client, transaction.envelope(), content)
            transaction.writer = None
        finally:
            self._discard()
        self._counters.messages_accepted += 1
        self._counters.recipients_accepted += transaction.recipients
        self._counters.octets_accepted += octets
        if not self._over:
            self._wire.accept(text)

    async def _start_tls(self) -> None:
        transport, context = self._transport, self._context
        self._flush()
        if transport is None or context is None or self._over or transport.is_closing():
            return
        side = TlsSide(self)
        try:
            inside = await self._loop.start_tls(
                transport, side, context, server_side=True, ssl_handshake_timeout=self._limits.handshake_seconds,
                ssl_shutdown_timeout=self._limits.linger_seconds,
            )  # fmt: skip
        except (OSError, EOFError) as error:
            self._counters.tls_failures += 1
            self._sessions.log.info("tls_failed", reason=printable(str(error)), **self._fields())
            transport.abort()
            self.connection_lost(None)
            return
        self._paused = False
        if inside is None:  # uvloop gives None when the peer was gone already
            transport.abort()
            self.connection_lost(None)
            return
        self._counters.tls_handshakes += 1
        self._wire.tls_started()
        self._identity = None
        self._transaction = None
        self._take_transport(inside)
        self._tls = _describe(inside)
        side.open()

    def _hold_back(self, refusal: Refusal, username: str) -> None:
        self._counters.auth_failed += 1
        self._auth_failures += 1
        throttle = self._sessions.throttle
        delay = throttle.failed(self._key, username, self._loop.time())
        self._sessions.log.info(
            "auth_failed", username=printable(username), reason=printable(refusal.private), **self._fields()
        )
        throttle.waiting += 1
        self._busy = True
        self._held_back = self._loop.call_later(delay, self._release, refusal)

    def _release(self, refusal: Refusal) -> None:
        self._stop_holding_back()
        if self._over:
            return
        if self._auth_failures >= self._limits.auth_failures_per_session:
            self._terminate(replies.TOO_MANY_FAILURES)
        else:
            self._counters.refusals[refusal.why] += 1
            self._wire.refuse(replies.reply_of(refusal), close=replies.closes(refusal))
        self._go_on()

    def _stop_holding_back(self) -> None:
        self._held_back = None
        self._sessions.throttle.waiting -= 1
        self._busy = False

    def _spoil(self) -> None:
        if self._transaction is not None:
            self._transaction.discard()

    def _discard(self) -> None:
        if self._transaction is not None:
            self._transaction.discard()
            self._transaction = None

    # words

    def _current(self) -> Transaction:
        if self._transaction is None:
            raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", "no transaction")
        return self._transaction

    def _client(self, *, smtputf8: bool) -> Client:
        wire = self._wire
        return Client(
            self._address,
            self._port,
            wire.helo,
            self._settings.name,
            wire.protocol(smtputf8=smtputf8),
            self._tls,
            self._clock(),
        )

    def _fields(self) -> dict[str, Any]:
        identity = self._identity
        return {
            "session": self._serial,
            "listener": self._settings.name,
            "client": self._address,
            "account": identity.account if identity else "",
            "credential": identity.credential if identity else "",
        }

    def _log_refusal(self, refusal: Refusal) -> None:
        self._counters.refusals[refusal.why] += 1
        self._sessions.log.info(
            "refused",
            why=refusal.why.name,
            public=printable(refusal.public),
            private=printable(refusal.private),
            **self._fields(),
        )


def _describe(transport: asyncio.BaseTransport | None) -> str | None:
    cipher = transport.get_extra_info("cipher") if transport is not None else None
    return f"{cipher[1]} {cipher[0]}" if cipher else None


_HANDLERS: dict[type[Event], Callable[[Session, Any], None]] = {
    Mail: Session._on_mail,  # noqa: SLF001 (the table of this class)
    Rcpt: Session._on_rcpt,  # noqa: SLF001
    Data: Session._on_data,  # noqa: SLF001
    ContentChunk: Session._on_content,  # noqa: SLF001
    EndOfData: Session._on_end_of_data,  # noqa: SLF001
    Authenticate: Session._on_authenticate,  # noqa: SLF001
    SecretExposed: Session._on_secret_exposed,  # noqa: SLF001
    StartTls: Session._on_starttls,  # noqa: SLF001
}
