"""The demo's catcher: our own SMTP server with a gate that keeps what it gets, and answers as the world does.

For demos only: it binds loopback. What it says depends on the recipient's domain (`WORLD`); any other domain takes everything.
A recipient of `late.example` is taken first, and a bounce (RFC 3464) goes to the reverse-path some seconds later.
"""

import asyncio
import contextlib
import random
import smtplib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import NoReturn

from postbud.app.caught import CaughtBox
from postbud.mime.body import scan_body
from postbud.mime.dsn import Action, DsnRecipient, build_dsn
from postbud.mime.header import HeaderSection, MalformedHeader, split_content
from postbud.mime.words import decode_words
from postbud.model.content import Content
from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.model.settings import SettingsError
from postbud.smtpd.counters import SmtpCounters
from postbud.smtpd.listener import SmtpListener
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import Limits, ListenerSettings, TlsMode
from postbud.telemetry.logs import configure

_SIZE_LIMIT = 64 * 1024 * 1024
_SLOW_SECONDS = (1.0, 6.0)
_GREY_SECONDS = 15.0
_LATE_SECONDS = 4.0
_FLAKY_SHARE = 0.3
_BUSY_SECONDS, _BUSY_EVERY_SECONDS = 20.0, 60.0

# What the catcher says about recipients of these domains.
WORLD: dict[str, tuple[Why, str]] = {
    "gone.example": (Why.NO_SUCH_MAILBOX, "No such user here"),
    "full.example": (Why.NO_SPACE, "The recipient's mailbox is full"),
    "grey.example": (Why.TEMPORARY, "Greylisted, please try again later"),
    "busy.example": (Why.SHUTTING_DOWN, "Too busy, please try again later"),
    "flaky.example": (Why.TEMPORARY, "Local trouble, please try again"),
    "picky.example": (Why.POLICY, "Message refused: its content looks like spam"),
}


class MemoryWriter:
    """Takes one content in memory."""

    needs_drain = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        """Take octets."""
        self._pieces.append(chunk)

    async def drain(self) -> None:
        """Do nothing: memory does not wait."""

    async def finish(self) -> Content:
        """Give the content."""
        octets = b"".join(self._pieces)
        split = split_content(octets)
        if split is None:
            raise Refusal(Why.BAD_CONTENT, "no header section")
        header, start = split
        return Content(header, octets[start:], scan_body(octets[start:]))

    def discard(self) -> None:
        """Throw it away."""
        self._pieces.clear()


@dataclass
class World:
    """How the domains behind the catcher behave now."""

    dice: random.Random = field(default_factory=random.Random)
    greylisted: dict[str, float] = field(default_factory=dict)

    def judge(self, recipient: Mailbox, now: float) -> None:
        """Refuse a recipient as its domain would at RCPT.

        Raises:
            Refusal: It would.
        """
        said = WORLD.get(recipient.domain)
        if said is None or recipient.domain == "picky.example":
            return
        if recipient.domain == "grey.example":
            first = self.greylisted.setdefault(str(recipient), now)
            if now - first >= _GREY_SECONDS:
                return
        if recipient.domain == "busy.example" and now % _BUSY_EVERY_SECONDS > _BUSY_SECONDS:
            return
        if recipient.domain == "flaky.example" and self.dice.random() > _FLAKY_SHARE:
            return
        raise Refusal(*said)

    async def take(self, envelope: Envelope) -> None:
        """Be slow where the domain is, and refuse content where it would.

        Raises:
            Refusal: It would.
        """
        domains = {recipient.mailbox.domain for recipient in envelope.recipients}
        if "picky.example" in domains:
            raise Refusal(*WORLD["picky.example"])
        if "slow.example" in domains:
            await asyncio.sleep(self.dice.uniform(*_SLOW_SECONDS))


class CatcherGate:
    """Takes what the world would take."""

    requires_auth = False
    size_limit_octets = _SIZE_LIMIT
    recipients_limit = 1000

    def __init__(self, box: CaughtBox, world: World, bounce_to: str, tasks: asyncio.TaskGroup) -> None:
        self._box = box
        self._world = world
        self._bounce_to = bounce_to
        self._tasks = tasks

    def authenticate(self, username: str, secret: bytes, client: Client) -> NoReturn:
        """Refuse: nobody signs in here."""
        del username, secret, client
        raise Refusal(Why.AUTH_FAILED, "no credentials are taken here")

    def identify(self, client_address: str) -> None:
        """Give None."""
        del client_address

    def check(self, identity: object) -> None:
        """Accept."""
        del identity

    def mail(self, identity: object, client: Client, reverse_path: Mailbox | None, parameters: MailParameters) -> None:
        """Accept."""
        del identity, client, reverse_path, parameters

    def rcpt(self, identity: object, client: Client, recipient: Recipient, earlier: int) -> None:
        """Answer as the recipient's domain would."""
        del identity, client, earlier
        self._world.judge(recipient.mailbox, time.monotonic())

    def open_content(self) -> MemoryWriter:
        """Give a writer."""
        return MemoryWriter()

    async def accept(self, identity: object, client: Client, envelope: Envelope, content: Content) -> str:
        """Keep the message."""
        del identity, client
        await self._world.take(envelope)
        body = content.body if isinstance(content.body, bytes) else b""
        recipients = [str(recipient.mailbox) for recipient in envelope.recipients]
        kept = await asyncio.to_thread(
            self._box.keep, str(envelope.reverse_path or ""), recipients, subject_of(content.header),
            content.header + b"\r\n" + body,
        )  # fmt: skip
        late = [recipient for recipient in envelope.recipients if recipient.mailbox.domain == "late.example"]
        if late and envelope.reverse_path is not None and self._bounce_to:
            self._tasks.create_task(self._bounce(envelope.reverse_path, late, content))
        return kept.id

    async def _bounce(self, reverse_path: Mailbox, late: list[Recipient], content: Content) -> None:
        """Send a DSN as a server would that takes first and looks for the mailbox later."""
        await asyncio.sleep(_LATE_SECONDS)
        now = datetime.fromtimestamp(time.time(), UTC)
        dsn = build_dsn(
            reporting_mta="mx.late.example", sender="MAILER-DAEMON@late.example", to=str(reverse_path),
            recipients=[
                DsnRecipient(str(one.mailbox), Action.FAILED, "5.1.1", diagnostic="550 5.1.1 No such user after all")
                for one in late
            ],
            message_id=f"{time.time_ns()}@late.example", at=now, original_header=content.header,
        )  # fmt: skip
        body = dsn.body if isinstance(dsn.body, bytes) else b""
        with contextlib.suppress(OSError, smtplib.SMTPException):
            await asyncio.to_thread(self._send, str(reverse_path), dsn.header + b"\r\n" + body)

    def _send(self, reverse_path: str, octets: bytes) -> None:
        host, _, port = self._bounce_to.rpartition(":")
        with smtplib.SMTP(host, int(port), local_hostname="mx.late.example", timeout=30) as smtp:
            smtp.sendmail("", [reverse_path], octets)


def subject_of(header: bytes) -> str:
    """Give the Subject of a header section as a person reads it."""
    try:
        return decode_words(HeaderSection.parse(header).value(b"subject") or b"")
    except MalformedHeader:
        return ""


class Catcher:
    """Listens and keeps. `bounce_to` is host:port of the inbound listener, where late bounces go; empty: none are sent."""

    def __init__(self, box: CaughtBox, bounce_to: str = "") -> None:
        self._box = box
        self._bounce_to = bounce_to
        self._listener: SmtpListener | None = None

    async def start(self, host: str, port: int, tasks: asyncio.TaskGroup) -> None:
        """Listen on a loopback address.

        Raises:
            SettingsError: The address is not loopback.
        """
        refuse_other_hosts(host)
        log, _ = configure(level="error", as_json=False, worker="catcher")
        dice = random.Random()  # noqa: S311 (plays the world's weather)
        self._listener = SmtpListener(
            ListenerSettings(address=f"{host}:{port}", hostname="mx.catcher.example", tls=TlsMode.NONE),
            CatcherGate(self._box, World(dice), self._bounce_to, tasks),
            None,
            Sessions(Limits(), SmtpCounters(), log, tasks),
            lambda: datetime.fromtimestamp(time.time(), UTC),
        )
        await self._listener.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.stop()


def refuse_other_hosts(host: str) -> None:
    """Stop who would open the catcher to others.

    Raises:
        SettingsError: The address is not loopback.
    """
    try:
        if ip_address(host.strip("[]")).is_loopback:
            return
    except ValueError:
        pass
    raise SettingsError(f"the catcher listens on loopback only, not on {host}")
