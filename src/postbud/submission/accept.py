"""Stages 1 to 3: take a submission, judge it, fix it up, store it; only then the 250.

`SubmissionGate` is what `smtpd` (and later `httpd`) asks. Its `accept` reads in the order of the journey. Nothing here
touches the network or any database but the spool; a refusal is said before the commit, and after it nothing can fail.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from postbud.link.replica import Grant, Replica
from postbud.mime.body import scan_body
from postbud.mime.header import HeaderSection, MalformedHeader
from postbud.mime.received import is_looping, received_field
from postbud.mime.transfer import to_quoted_printable
from postbud.mime.words import decode_words
from postbud.model.account import Kind
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.envelope import Client, Envelope, MailParameters, Recipient
from postbud.model.event import Event, EventKind
from postbud.model.ids import AccountId, DeliveryId, MessageId, to_octets
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.model.token import Purpose, TokenKeys
from postbud.policy.chain import Ruling, Verdict, judge
from postbud.policy.facts import gather
from postbud.policy.rule import Mode
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import Answer, Batch, NewMessage, SpoolBroken
from postbud.submission.authenticate import Authenticator, Identity
from postbud.submission.context import NOTHING_SAID, SubmissionContext, overlay, read_context
from postbud.submission.fixups import fix_up
from postbud.submission.quotas import Quotas
from postbud.telemetry.logs import Log

_DAY_SECONDS = 86400
_MAX_SUBJECT = 998


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """What the operator decides about taking mail."""

    hostname: str
    bounce_domain: str | None = None
    size_limit_octets: int = 50 * 1024 * 1024
    recipients_limit: int = 1000
    expire_after_seconds: float = 4 * _DAY_SECONDS
    held_octets_per_account: int = 1 << 30  # in this worker
    captures: bool = False  # sandbox mail waits until its content is taken (a console); else it is captured without content


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that is durable: its id, when it was taken, and its deliveries as (mailbox, delivery id)."""

    message: MessageId
    at: datetime
    deliveries: tuple[tuple[str, DeliveryId], ...]


Memo = Callable[[Accepted], Answer]
Admit = Callable[[Message, Content, Sequence[Delivery]], None]


class SubmissionGate:
    """Judges and stores what authenticated clients hand in."""

    requires_auth = True

    def __init__(
        self,
        settings: SubmissionSettings,
        replica: Replica,
        spool: Spool,
        token_keys: Callable[[], TokenKeys],
        quotas: Quotas,
        held_octets: Callable[[AccountId], int],
        admit: Admit,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._spool = spool
        self._token_keys = token_keys
        self._quotas = quotas
        self._held_octets = held_octets
        self._admit = admit
        self._clock = clock
        self._log = log
        self._hostname = settings.hostname.encode("ascii")
        self._authenticator = Authenticator(replica, clock)
        self.size_limit_octets = settings.size_limit_octets
        self.recipients_limit = settings.recipients_limit

    # -- what the session asks, in its order ----------------------------------------------------------------------------

    def authenticate(self, username: str, secret: bytes, _client: Client) -> Identity:
        """Check a username and secret; see `Authenticator.authenticate`."""
        return self._authenticator.authenticate(username, secret)

    def authenticate_key(self, text: str) -> Identity:
        """Check a key of the sending API; see `Authenticator.authenticate_key`."""
        return self._authenticator.authenticate_key(text)

    def identify(self, client_address: str) -> Identity | None:
        """Give the network credential of an address."""
        return self._authenticator.identify(client_address)

    def check(self, identity: object) -> None:
        """Refuse who may not send now (status, design §2)."""
        self._grant(identity)

    def mail(self, identity: object, _client: Client, reverse_path: Mailbox | None, _parameters: MailParameters) -> None:
        """Judge a reverse-path (policy C7): with a bounce domain it is replaced, without one it is the account's own."""
        grant = self._grant(identity)
        self._quotas.check(grant)
        if self._held_octets(grant.account.id) >= self._settings.held_octets_per_account:
            raise Refusal(Why.NO_SPACE, "too much mail of this account is on hold; release or cancel it, then send again")
        if reverse_path is None:
            if not grant.credential.allow_null_reverse_path:
                raise Refusal(Why.NOT_ALLOWED, "this credential may not send with the null reverse-path")
            return
        if self._settings.bounce_domain is None and not self._covers(grant, reverse_path.domain):
            raise Refusal(Why.NOT_ALLOWED, "the reverse-path domain is not verified for this account", reverse_path.domain)

    def rcpt(self, identity: object, _client: Client, recipient: Recipient, earlier: int) -> None:
        """Judge a forward-path: suppressions and the number of recipients."""
        grant = self._grant(identity)
        if earlier >= self.recipients_limit:
            raise Refusal(Why.TOO_MANY_RECIPIENTS, f"at most {self.recipients_limit} recipients a message")
        if self._replica.directory.is_suppressed(grant.account.id, recipient.mailbox.key()):
            raise Refusal(Why.SUPPRESSED, "[SUP-LIST] this recipient is on a suppression list and is not mailed")

    def open_content(self) -> ContentWriter:
        """Give a writer for one content."""
        return self._spool.open_content()

    async def accept(self, identity: object, client: Client, envelope: Envelope, content: Content) -> str:
        """Judge, fix up and store; the message id when it is durable.

        Raises:
            Refusal: The policy, the content, a quota, or the disk says no; nothing was kept.
        """
        return (await self.submit(identity, client, envelope, content)).message

    async def submit(
        self,
        identity: object,
        client: Client,
        envelope: Envelope,
        content: Content,
        *,
        said: SubmissionContext = NOTHING_SAID,
        memo: Memo | None = None,
    ) -> Accepted:
        """Do as `accept` does, and tell more.

        `said` goes before what the submission fields say; what `memo` makes of the answer is kept in the very same commit.

        Raises:
            Refusal: As `accept`.
        """
        grant = self._grant(identity)
        now = self._clock()
        at = datetime.fromtimestamp(now, UTC)
        section = self._read_header(content)
        context = overlay(said, read_context(section, at))
        ruling, from_mailboxes = self._judge(grant, envelope, section, at)
        message_id = self._spool.ids.message()
        domain = self._replica.directory.covering(grant.account.id, from_mailboxes[0].domain)
        fixed = fix_up(
            section,
            hostname=self._hostname,
            signing_domain=domain.name.encode() if domain is not None else b"",
            selectors=frozenset(key.selector.lower().encode() for key in domain.keys) if domain is not None else frozenset(),
            from_mailboxes=from_mailboxes,
            new_message_id=lambda: f"{message_id}@{from_mailboxes[0].domain}",
            now=at,
        )
        content = await _within_line_limit(Content(fixed.header, content.body, content.facts))
        trace = self._trace(client, envelope, message_id, at)
        content = Content(trace + content.header, content.body, content.facts)
        message = self._message(
            grant,
            client,
            envelope,
            content,
            context,
            message_id,
            fixed.message_id,
            from_mailboxes[0],
            at,
            subject=decode_words(section.value(b"subject") or b"")[:_MAX_SUBJECT],
        )
        deliveries = self._deliveries(message, envelope, context, now, domain.return_path if domain is not None else "")
        await self._keep(identity, message, content, deliveries, ruling, memo)
        return accepted_as(message, deliveries)

    # -- parts -------------------------------------------------------------------------------------------------------------

    async def _keep(
        self,
        identity: object,
        message: Message,
        content: Content,
        deliveries: list[Delivery],
        ruling: Ruling,
        memo: Memo | None,
    ) -> None:
        batch = self._batch(message, content, deliveries, ruling)
        if memo is not None:
            batch.answers.append(memo(accepted_as(message, deliveries)))
        await self._quotas.ready(self._grant(identity), len(deliveries))
        grant = self._grant(identity)  # status once more, just before the commit
        batch.uses = self._quotas.take(grant, len(deliveries))
        try:
            await self._spool.commit(batch)
        except Refusal as refusal:
            if not isinstance(refusal, SpoolBroken):
                self._quotas.give_back(grant, len(deliveries))
            raise
        if batch.messages:
            self._admit(message, content, deliveries)
        self._log.info(
            "accepted", message=message.id, account=message.account, credential=message.credential,
            recipients=len(deliveries), octets=message.size_octets, client=message.client,
        )  # fmt: skip

    def _trace(self, client: Client, envelope: Envelope, message_id: MessageId, at: datetime) -> bytes:
        return received_field(
            helo=client.helo,
            client_address=client.address,
            hostname=self._settings.hostname,
            protocol=client.protocol,
            message_id=message_id,
            at=at,
            recipient=str(envelope.recipients[0].mailbox) if len(envelope.recipients) == 1 else None,
            tls=client.tls,
        )

    def _grant(self, identity: object) -> Grant:
        if not isinstance(identity, Identity):
            raise Refusal(Why.AUTH_REQUIRED, "Authentication required")
        return self._authenticator.grant(identity)

    def _covers(self, grant: Grant, domain: str) -> bool:
        return self._replica.directory.covering(grant.account.id, domain) is not None

    def _read_header(self, content: Content) -> HeaderSection:
        try:
            section = HeaderSection.parse(content.header)
        except MalformedHeader as error:
            raise Refusal(Why.TOO_BIG if error.too_big else Why.BAD_CONTENT, error.why) from error
        if not section.fields:
            raise Refusal(Why.BAD_CONTENT, "the message has no header section")
        if is_looping(section, self._settings.hostname):
            raise Refusal(Why.LOOP, "mail loop: too many Received fields")
        if content.facts.nul:
            raise Refusal(Why.BAD_CONTENT, "the body holds a NUL octet")
        return section

    def _judge(
        self, grant: Grant, envelope: Envelope, section: HeaderSection, at: datetime
    ) -> tuple[Ruling, tuple[Mailbox, ...]]:
        facts = gather(
            section,
            kind=grant.server.kind,
            reverse_path=envelope.reverse_path,
            recipients=tuple(recipient.mailbox for recipient in envelope.recipients),
            received_at=at,
            covered=lambda domain: self._covers(grant, domain),
            allow_from=grant.credential.allow_from,
        )
        ruling = judge(facts, self._replica.directory.policy_modes)
        for rule, _, error in ruling.crashed:
            self._log.error("rule_crashed", rule=rule.id, error=repr(error), account=grant.account.id)
        if ruling.verdict is Verdict.REFUSE and ruling.decisive is not None:
            rule, finding = ruling.decisive
            raise Refusal(finding.why, f"[{rule.id}] {finding.public}", finding.private)
        if any(mode is Mode.ENFORCE for _, mode, _ in ruling.crashed) or not facts.from_field.mailboxes:
            raise Refusal(Why.TEMPORARY, "the message could not be judged; try again later")
        return ruling, tuple(entry.mailbox for entry in facts.from_field.mailboxes)

    def _message(
        self, grant: Grant, client: Client, envelope: Envelope, content: Content, context: SubmissionContext,
        message_id: MessageId, message_id_field: str, from_mailbox: Mailbox, at: datetime, subject: str,
    ) -> Message:  # fmt: skip
        domain = self._replica.directory.covering(grant.account.id, from_mailbox.domain)
        eight_bit_header = not content.header.isascii()
        return Message(
            id=message_id,
            account=grant.account.id,
            server=grant.server.id,
            credential=grant.credential.id,
            reverse_path=self._report_to(grant, envelope.reverse_path, from_mailbox),
            signing_domain=domain.name if domain is not None else None,
            from_domain=from_mailbox.domain,
            received_at=at,
            size_octets=content.octets,
            eight_bit=content.facts.eight_bit or eight_bit_header,
            smtputf8=envelope.smtputf8 and (eight_bit_header or _needs_smtputf8(envelope.reverse_path)),
            require_tls=envelope.require_tls,
            ret_full=envelope.ret_full,
            envid=envelope.envid,
            pool=grant.server.pool,
            marketing=grant.server.kind is Kind.MARKETING,
            sandbox=grant.server.kind is Kind.SANDBOX,
            tag=context.tag,
            campaign=context.campaign,
            list=context.list,
            metadata=context.metadata,
            subject=subject,
            message_id=message_id_field[:998],
            client=client.address,
        )

    def _report_to(self, grant: Grant, reverse_path: Mailbox | None, from_mailbox: Mailbox) -> str:
        """Give where our DSNs go: the submitted reverse-path when it is the account's, else the author."""
        if reverse_path is None:
            return ""
        return str(reverse_path if self._covers(grant, reverse_path.domain) else from_mailbox)

    def _deliveries(
        self, message: Message, envelope: Envelope, context: SubmissionContext, now: float, own: str
    ) -> list[Delivery]:
        """Make the deliveries; `own` is the signing domain's name for our bounce host, if it has one."""
        due_at = max(now, context.send_at.timestamp()) if context.send_at is not None else now
        day = int(now // _DAY_SECONDS)
        shared = self._return_path(Purpose.RETURN_PATH_MESSAGE, message.id, day, own) if not message.marketing else None
        deliveries: dict[str, Delivery] = {}
        for recipient in envelope.recipients:
            mailbox = str(recipient.mailbox)
            if mailbox in deliveries:
                continue
            delivery_id = self._spool.ids.delivery()
            return_path = shared
            if message.marketing:
                return_path = self._return_path(Purpose.RETURN_PATH_DELIVERY, delivery_id, day, own)
            deliveries[mailbox] = Delivery(
                id=delivery_id,
                message_id=message.id,
                mailbox=mailbox,
                domain=recipient.mailbox.domain,
                due_at=due_at,
                created_at=due_at,
                expires_at=due_at + self._settings.expire_after_seconds,
                notify=recipient.notify,
                orcpt=recipient.orcpt,
                reverse_path=return_path if message.reverse_path else None,
            )
        return list(deliveries.values())

    def _return_path(self, purpose: Purpose, public_id: str, day: int, own: str) -> str | None:
        if self._settings.bounce_domain is None:
            return None
        return f"b-{self._token_keys().make(purpose, to_octets(public_id), day)}@{own or self._settings.bounce_domain}"

    def _batch(self, message: Message, content: Content, deliveries: list[Delivery], ruling: Ruling) -> Batch:
        accepted = Event(
            id=self._spool.ids.event(),
            kind=EventKind.ACCEPTED,
            at=message.received_at,
            account=message.account,
            server=message.server,
            credential=message.credential,
            message=message.id,
            message_at=message.received_at,
            reverse_path=message.reverse_path,
            subject=message.subject,
            message_id=message.message_id,
            size_octets=message.size_octets,
            recipients=tuple(delivery.mailbox for delivery in deliveries),
            deliveries=tuple(delivery.id for delivery in deliveries),
            notify=tuple(each.notify.words for each in deliveries) if any(each.notify.said for each in deliveries) else (),
            orcpt=tuple(each.orcpt or "" for each in deliveries) if any(each.orcpt for each in deliveries) else (),
            envid=message.envid or "",
            list=message.list or "",
            campaign=message.campaign or "",
            tag=message.tag or "",
            metadata=message.metadata or "",
            from_domain=message.from_domain,
            signing_domain=message.signing_domain or "",
            pool=message.pool or "",
            client=message.client,
            findings=ruling.names(),
        )
        if message.sandbox and not self._settings.captures:
            captured = [self._captured(message, delivery) for delivery in deliveries]
            return Batch(events=[accepted, *captured])
        return Batch(messages=[NewMessage(message, content, deliveries)], events=[accepted])

    def _captured(self, message: Message, delivery: Delivery) -> Event:
        delivery.state = State.CAPTURED
        return Event(
            id=self._spool.ids.event(),
            kind=EventKind.CAPTURED,
            at=message.received_at,
            account=message.account,
            server=message.server,
            credential=message.credential,
            message=message.id,
            delivery=delivery.id,
            message_at=message.received_at,
            recipient=delivery.mailbox,
            message_id=message.message_id,
            from_domain=message.from_domain,
        )


def accepted_as(message: Message, deliveries: Sequence[Delivery]) -> Accepted:
    """Give what whoever handed it in is told."""
    return Accepted(message.id, message.received_at, tuple([(delivery.mailbox, delivery.id) for delivery in deliveries]))


def _needs_smtputf8(reverse_path: Mailbox | None) -> bool:
    return reverse_path is not None and reverse_path.needs_smtputf8


async def _within_line_limit(content: Content) -> Content:
    """Re-encode a body whose lines exceed 998 octets where MIME allows it, before anything is signed (row G3)."""
    if not content.facts.long_line:
        return content
    encoded = await asyncio.to_thread(_encode, content)
    if encoded is None:
        raise Refusal(Why.BAD_CONTENT, "a body line is longer than 998 octets and may not be re-encoded")
    return encoded


def _encode(content: Content) -> Content | None:
    body = content.body if isinstance(content.body, bytes) else content.body.read_bytes()
    encoded = to_quoted_printable(content.header, body)
    return Content(encoded[0], encoded[1], scan_body(encoded[1])) if encoded is not None else None
