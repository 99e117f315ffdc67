"""A server of ours in a thread, with a gate that keeps messages in memory: the second real gate, for tests of `smtpd` alone.

The gate is strict where the protocol needs an answer (names, secrets, status) and takes all else. Content goes through the
spool's own writer into a folder of the test's.
"""

import asyncio
import base64
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import structlog
import uvloop

from postbud.model.content import Content
from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.smtpd.counters import SmtpCounters
from postbud.smtpd.listener import SmtpListener
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import Limits, ListenerSettings, Role, TlsMode
from postbud.smtpd.tls import ServerTls, make_self_signed
from postbud.spool.content import ContentStore, ContentWriter
from postbud.spool.values import SpoolSettings
from tests.system.smtp import Wire

T = TypeVar("T")
NOW = datetime(2026, 11, 24, 21, 0, tzinfo=UTC)
SECRET = b"correct horse battery"


@dataclass(frozen=True)
class Known:
    """An identity of the test's."""

    account: str
    credential: str
    normalise_line_ends: bool = False


@dataclass(frozen=True)
class Kept:
    """One accepted message."""

    identity: Known | None
    client: Client
    envelope: Envelope
    octets: bytes


class RecordingGate:
    """Knows `printer` and `fax` (whose line ends are normalised), both with `SECRET`, and one network credential."""

    def __init__(self, folder: Path, *, requires_auth: bool = True) -> None:
        self.requires_auth = requires_auth
        self.size_limit_octets = 1 << 20
        self.recipients_limit = 1_000
        self.kept: list[Kept] = []
        self.secrets = {"printer": SECRET, "fax": SECRET}
        self.network = ""  # the address of a device that cannot sign in
        self.status: Refusal | None = None
        self.accept_refusal: Exception | None = None
        self.gone = asyncio.Event()  # set: `accept` may go on
        self.gone.set()
        self.asked = 0
        self.opened = 0
        folder.mkdir(parents=True, exist_ok=True)
        names = itertools.count()
        self.store = ContentStore(folder, SpoolSettings(), lambda: f"content-{next(names)}")

    def authenticate(self, username: str, secret: bytes, client: Client) -> Known:
        """Know two names."""
        assert client.address
        self.asked += 1
        if username == "blocked" and secret == SECRET:
            raise Refusal(Why.BLOCKED_AUTH, "Account is blocked")
        if username == "bug":
            raise RuntimeError("a bug in the gate")
        if username not in self.secrets or secret != self.secrets[username]:
            raise Refusal(Why.AUTH_FAILED, "Authentication failed", "unknown name or wrong secret")
        return Known("acct_acme", f"crd_{username}", normalise_line_ends=username == "fax")

    def identify(self, client_address: str) -> Known | None:
        """Know one address."""
        return Known("acct_acme", "crd_network") if client_address == self.network else None

    def check(self, identity: Known | None) -> None:
        """Refuse everybody while there is a status."""
        if self.status is not None and identity is not None:
            raise self.status

    def mail(self, identity: Known | None, client: Client, reverse_path: Mailbox | None, parameters: MailParameters) -> None:
        """Refuse one sender."""
        if reverse_path is not None and reverse_path.local_part == "bug":
            raise RuntimeError("a bug in the gate")

    def rcpt(self, identity: Known | None, client: Client, recipient: Recipient, earlier: int) -> None:
        """Refuse some recipients."""
        if recipient.mailbox.local_part.startswith("nobody"):
            raise Refusal(Why.NO_SUCH_MAILBOX, "No such mailbox here")
        if not self.requires_auth and recipient.mailbox.domain != "bounce.example":
            raise Refusal(Why.NOT_ALLOWED, "We do not relay")

    def open_content(self) -> ContentWriter:
        """Give the spool's own writer."""
        self.opened += 1
        return ContentWriter(self.store)

    async def accept(self, identity: Known | None, client: Client, envelope: Envelope, content: Content) -> str:
        """Keep it."""
        await self.gone.wait()
        if self.accept_refusal is not None:
            raise self.accept_refusal
        body = content.body if isinstance(content.body, bytes) else content.body.read_bytes()
        self.kept.append(Kept(identity, client, envelope, content.header + b"\r\n" + body))
        return f"msg_{len(self.kept)}"


class Server:
    """Listeners of ours on an event loop in a thread."""

    def __init__(self, folder: Path, limits: Limits | None = None, *, requires_auth: bool = True) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self.counters = SmtpCounters()
        self.events: list[dict[str, Any]] = []
        self.ports: list[int] = []
        self.listeners: list[SmtpListener] = []
        self._requires_auth = requires_auth
        self._wanted: list[ListenerSettings] = []
        self._ready = threading.Event()
        self._clients = ExitStack()
        self._thread: threading.Thread | None = None

    def listen(self, **changes: Any) -> "Server":
        """Add a listener, STARTTLS and submission unless changed."""
        base = ListenerSettings("127.0.0.1:0", "relay.example", auth_without_tls=True)
        self._wanted.append(replace(base, **changes))
        return self

    def start(self) -> None:
        """Start everything."""
        for name, octets in zip(("certificate.pem", "key.pem"), _certificate(), strict=True):
            (self.folder / name).write_bytes(octets)
        self.tls = ServerTls(self.folder / "certificate.pem", self.folder / "key.pem")
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """End everything."""
        self._clients.close()
        self.call(self._stop.set)
        assert self._thread is not None
        self._thread.join(10)
        assert not self._thread.is_alive()

    def client(self, listener: int = 0, **how: Any) -> Wire:
        """Connect; the connection is closed when the server stops."""
        return self._clients.enter_context(Wire(self.ports[listener], **how))

    def ready(self, username: str = "printer") -> Wire:
        """Connect and sign in."""
        wire = self.client()
        wire.hello()
        sign_in(wire, username)
        return wire

    def call(self, work: Callable[[], T]) -> T:
        """Run something on the server's loop."""

        async def run() -> T:
            return work()

        return self.wait(run())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def faults(self) -> list[dict[str, Any]]:
        """Give the log's lines about exceptions."""
        return [event for event in self.events if event["level"] == "error"]

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.gate = RecordingGate(self.folder / "content", requires_auth=self._requires_auth)
        log = structlog.wrap_logger(None, processors=[structlog.processors.add_log_level, self._keep])
        async with asyncio.TaskGroup() as tasks:
            self.sessions = Sessions(self.limits, self.counters, log, tasks)
            for settings in self._wanted:
                tls = self.tls if settings.tls is not TlsMode.NONE else None
                listener = SmtpListener(settings, self.gate, tls, self.sessions, lambda: NOW)
                await listener.start()
                self.listeners.append(listener)
                self.ports.append(listener.port)
            self._ready.set()
            await self._stop.wait()
            for listener in self.listeners:
                listener.stop()
            self.gate.gone.set()
            await self.sessions.drain(0.2)
        self.gate.store.close()

    def _keep(self, _logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
        self.events.append(event)
        raise structlog.DropEvent


@cache
def _certificate() -> tuple[bytes, bytes]:
    """Make one certificate for all tests: an RSA key takes a while."""
    with TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
        make_self_signed(certificate, key, "relay.example", lambda: NOW)
        return certificate.read_bytes(), key.read_bytes()


def sign_in(wire: Wire, username: str = "printer") -> None:
    """AUTH PLAIN."""
    token = base64.b64encode(b"\0" + username.encode() + b"\0" + SECRET).decode()
    assert wire.say(f"AUTH PLAIN {token}").code == 235


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def serving(folder: Path, limits: Limits | None = None, *, requires_auth: bool = True, **listener: Any) -> Iterator[Server]:
    """A server with one listener; nothing unexpected may have happened in it when it ends."""
    role = {} if requires_auth else {"role": Role.INBOUND}
    server = Server(folder, limits, requires_auth=requires_auth).listen(**(role | listener))
    server.start()
    try:
        yield server
    finally:
        server.stop()
