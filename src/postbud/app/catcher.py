"""The demo's catcher: our own SMTP server with a gate that takes everything and keeps it as files.

For demos only: it binds loopback. The files are named by arrival; `X-Caught-*` lines on top tell the envelope.
"""

import asyncio
import itertools
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

from postbud.mime.body import scan_body
from postbud.mime.header import split_content
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


class CatcherGate:
    """Takes everything."""

    requires_auth = False
    size_limit_octets = _SIZE_LIMIT
    recipients_limit = 1000

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(sum(1 for _ in folder.glob("*.eml")) + 1)

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
        """Accept."""
        del identity, client, recipient, earlier

    def open_content(self) -> MemoryWriter:
        """Give a writer."""
        return MemoryWriter()

    async def accept(self, identity: object, client: Client, envelope: Envelope, content: Content) -> str:
        """Keep the message as a file."""
        del identity, client
        name = f"{next(self._numbers):06d}.eml"
        lines = [f"X-Caught-From: <{envelope.reverse_path or ''}>"]
        lines += [f"X-Caught-To: <{recipient.mailbox}>" for recipient in envelope.recipients]
        body = content.body if isinstance(content.body, bytes) else b""
        octets = "\r\n".join(lines).encode() + b"\r\n" + content.header + b"\r\n" + body
        await asyncio.to_thread((self._folder / name).write_bytes, octets)
        return name


class Catcher:
    """Listens and keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._listener: SmtpListener | None = None

    async def start(self, host: str, port: int, tasks: asyncio.TaskGroup) -> None:
        """Listen on a loopback address.

        Raises:
            SettingsError: The address is not loopback.
        """
        if not ip_address(host).is_loopback:
            raise SettingsError("the catcher listens on loopback only")
        log, _ = configure(level="error", as_json=False, worker="catcher")
        self._listener = SmtpListener(
            ListenerSettings(address=f"{host}:{port}", hostname="catcher.example", tls=TlsMode.NONE),
            CatcherGate(self.folder),
            None,
            Sessions(Limits(), SmtpCounters(), log, tasks),
            lambda: datetime.fromtimestamp(time.time(), UTC),
        )
        await self._listener.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.stop()
