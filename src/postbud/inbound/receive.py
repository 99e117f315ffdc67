"""The gate of `inbound` listeners: mail to our own bounce, postmaster and abuse mailboxes, and no other.

A DSN to a return path with a valid token names a message of ours; whoever accepted that message records the bounce (the
wiring finds the worker). Everything else is kept as a file and noted by an event; our own reports that come back are
dropped and counted (row H4). Never a relay (row H1): a domain that is not ours is refused at RCPT.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from postbud.mime.report import DsnReport, ReportKind, parse_dsn
from postbud.model.content import Content
from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.event import Event, EventKind
from postbud.model.ids import to_text
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.model.returned import Heard, Returned, ReturnedRecipient
from postbud.model.token import Purpose, TokenKeys
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch
from postbud.telemetry.logs import Log

_DAY_SECONDS = 86400
_RETURN_PATH_PREFIX = "b-"
_PEOPLE = frozenset({"postmaster", "abuse"})
_MAX_KEPT_FILES = 10_000
_MAX_REPORT_OCTETS = 10 * 1024 * 1024

_UNHEARD = {
    Heard.UNKNOWN: "which is not known any more",
    Heard.NOBODY: "naming none of its recipients",
}

Deliver = Callable[[Returned], Awaitable[Heard]]


@dataclass(frozen=True, slots=True)
class InboundSettings:
    """Which domains are ours, and where mail for people is kept."""

    hostname: str
    bounce_domain: str | None
    folder: Path
    size_limit_octets: int = _MAX_REPORT_OCTETS
    recipients_limit: int = 100


class InboundGate:
    """Takes what comes back."""

    requires_auth = False

    def __init__(
        self,
        settings: InboundSettings,
        spool: Spool,
        token_keys: Callable[[], TokenKeys],
        is_return_path: Callable[[str], bool],
        deliver: Deliver,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        """`is_return_path` knows customers' names for our bounce host.

        `deliver` hands a bounce to the worker that accepted the message; it answers what became of it.
        """
        self._settings = settings
        self._spool = spool
        self._token_keys = token_keys
        self._is_return_path = is_return_path
        self._deliver = deliver
        self._clock = clock
        self._log = log
        self.size_limit_octets = settings.size_limit_octets
        self.recipients_limit = settings.recipients_limit
        self.bounces = 0
        self.dropped = 0

    # -- what the session asks ------------------------------------------------------------------------------------------------

    def authenticate(self, username: str, secret: bytes, client: Client) -> NoReturn:
        """Refuse: nobody signs in here."""
        del secret, client
        raise Refusal(Why.AUTH_FAILED, "no credentials are taken here", f"username {username!r}")

    def identify(self, client_address: str) -> None:
        """Give None: nobody is known here."""
        del client_address

    def check(self, identity: object) -> None:
        """Accept: there is no status to check."""
        del identity

    def mail(self, identity: object, client: Client, reverse_path: Mailbox | None, parameters: MailParameters) -> None:
        """Accept every reverse-path: it proves nothing here."""
        del identity, client, reverse_path, parameters

    def rcpt(self, identity: object, client: Client, recipient: Recipient, earlier: int) -> None:
        """Accept our own mailboxes only; a bad token hears the same as an unknown mailbox (rows H2, H8)."""
        del identity, client
        domain = recipient.mailbox.domain
        if domain not in (self._settings.hostname, self._settings.bounce_domain) and not self._is_return_path(domain):
            raise Refusal(Why.NOT_ALLOWED, "relaying denied: not a domain of ours")
        if earlier >= self.recipients_limit:
            raise Refusal(Why.TOO_MANY_RECIPIENTS, f"at most {self.recipients_limit} recipients a message")
        local_part = recipient.mailbox.local_part.lower()
        if local_part not in _PEOPLE and self._token_id(recipient.mailbox) is None:
            raise Refusal(Why.NO_SUCH_MAILBOX, "no such mailbox here")

    def open_content(self) -> ContentWriter:
        """Give a writer for one content."""
        return self._spool.open_content()

    async def accept(self, identity: object, client: Client, envelope: Envelope, content: Content) -> str:
        """Understand and keep; what is told about it is durable before the 250."""
        del identity
        body = content.body if isinstance(content.body, bytes) else await asyncio.to_thread(content.body.read_bytes)
        report = await asyncio.to_thread(parse_dsn, content.header, body, own_hostname=self._settings.hostname)
        queue_id = self._spool.ids.message()
        for recipient in envelope.recipients:
            public_id = self._token_id(recipient.mailbox)
            if public_id is not None and report is not None and report.ours:
                self.dropped += 1
                self._log.warning("own_report_returned", about=public_id)
            elif public_id is not None and report is not None and report.kind is ReportKind.DSN:
                heard = await self._deliver(returned(public_id, report))
                self.bounces += 1
                self._log.info("bounce_returned", about=public_id, heard=heard.value, reporting_mta=report.reporting_mta)
                why = _UNHEARD.get(heard)
                if why is not None:
                    await self._note(queue_id, client, recipient, f"dsn about {public_id}, {why}")
            else:
                kind = report.kind.value if report is not None else "mail"
                kept = "" if public_id is not None else await asyncio.to_thread(self._keep, queue_id, content.header, body)
                about = f" about {public_id}" if public_id is not None else ""
                await self._note(queue_id, client, recipient, f"{kind}{about}{kept}")
        return queue_id

    # -- parts -----------------------------------------------------------------------------------------------------------------

    def _token_id(self, mailbox: Mailbox) -> str | None:
        """Give the public id that a return path names; None unless the token is ours and of that purpose."""
        local_part = mailbox.local_part.lower()
        ours = mailbox.domain == self._settings.bounce_domain or self._is_return_path(mailbox.domain)
        if not ours or not local_part.startswith(_RETURN_PATH_PREFIX):
            return None
        token = local_part[len(_RETURN_PATH_PREFIX) :]
        today = int(self._clock() // _DAY_SECONDS)
        for purpose, prefix in ((Purpose.RETURN_PATH_MESSAGE, "msg"), (Purpose.RETURN_PATH_DELIVERY, "dlv")):
            octets = self._token_keys().verify(token, purpose, today)
            if octets is not None:
                return to_text(prefix, octets)
        return None

    async def _note(self, queue_id: str, client: Client, recipient: Recipient, reason: str) -> None:
        event = Event(
            id=self._spool.ids.event(),
            kind=EventKind.INBOUND_OTHER,
            at=datetime.fromtimestamp(self._clock(), UTC),
            message=queue_id,
            recipient=str(recipient.mailbox),
            client=client.address,
            reason=reason,
        )
        await self._spool.commit(Batch(events=[event]))

    def _keep(self, queue_id: str, header: bytes, body: bytes) -> str:
        """Keep mail for people as a file, fsynced; beyond the bound it is refused, not dropped."""
        folder = self._settings.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sum(1 for _ in folder.iterdir()) >= _MAX_KEPT_FILES:
            raise Refusal(Why.NO_SPACE, "mailbox is full; try again later", f"{folder.name} holds {_MAX_KEPT_FILES} files")
        path = folder / f"{queue_id}.eml"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + b"\r\n" + body)
            file.flush()
            os.fsync(file.fileno())
        folder_descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(folder_descriptor)
        finally:
            os.close(folder_descriptor)
        return f", kept as {path.name}"


def returned(public_id: str, report: DsnReport) -> Returned:
    """Give the report about one message in the form that delivery records."""
    return Returned(
        id=public_id,
        reporting_mta=report.reporting_mta,
        recipients=tuple(
            ReturnedRecipient(
                mailbox=one.final or one.original,
                action=one.action,
                status=one.status,
                diagnostic=one.diagnostic,
                original=one.original,
            )
            for one in report.recipients
        ),
    )
