"""Sending a delivery again that has ended: the same content is handed in once more, by the credential that handed it in.

Owns where the content comes from: this spool while the message is still in it, else the console, which keeps it for servers
that say so. Then the gate is asked everything as if the device spoke: status, suppressions, rules, quota. Invariant: a command
makes one message at most, however often it is carried out; what it made is remembered in the commit that made it.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest

from postbud.model.content import Content
from postbud.model.envelope import NO_PARAMETERS, Client, Envelope, Notify, Recipient
from postbud.model.event import Event
from postbud.model.ids import MessageId
from postbud.model.link import CommandRecord
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from postbud.net.http import LinkClient, LinkDown, LinkRefused
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import Answer, Damaged, SpoolBroken, Unknown
from postbud.submission.accept import Accepted, SubmissionGate
from postbud.submission.authenticate import Identity
from postbud.submission.context import SubmissionContext

_LATER = frozenset({Why.TEMPORARY, Why.NO_SPACE, Why.AUTH_BUSY, Why.SHUTTING_DOWN, Why.RATE})
_CHUNK_OCTETS = 256 * 1024
_KEY_OCTETS = 16
_REMEMBERED_SECONDS = 2 * 86400.0  # a command lasts a day
_OUR_TRACE = b"received:"


@dataclass(frozen=True, slots=True)
class Resent:
    """What became of it: the new message, or why there is none."""

    message: str = ""
    reason: str = ""


class Resending:
    """Sends again what the console's commands name."""

    def __init__(self, gate: SubmissionGate, spool: Spool, client: LinkClient, clock: Callable[[], float]) -> None:
        """`client` is the way to the console."""
        self._gate = gate
        self._spool = spool
        self._client = client
        self._clock = clock

    async def carry_out(self, command: CommandRecord) -> Resent | None:
        """Hand one delivery in again; a no that stays one is told, not raised. None: the message is not this worker's.

        Raises:
            Refusal: It does not go now: the console is silent, the disk is full, a rate is used up. To be tried again.
        """
        selector = command.selector
        key = hashlib.blake2b(f"command\0{command.id}".encode(), digest_size=_KEY_OCTETS).digest()
        if (done := await self._spool.answer(key, self._clock() - _REMEMBERED_SECONDS)) is not None:
            return Resent(done.decode())
        accepted = await self._accepted(selector.message or "")
        if accepted is None or accepted.account != selector.account:
            return None
        recipient = _recipient(accepted, selector.delivery or "")
        if recipient is None:
            return Resent(reason="the message has no such delivery")
        try:
            return await self._hand_in(accepted, recipient, command, key)
        except SpoolBroken:
            raise
        except Refusal as refusal:
            if refusal.why in _LATER:
                raise
            return Resent(reason=refusal.public)

    async def _accepted(self, message: str) -> Event | None:
        try:
            return await self._spool.accepted_event(message)
        except ValueError:
            return None

    async def _hand_in(self, accepted: Event, recipient: Recipient, command: CommandRecord, key: bytes) -> Resent:
        identity = Identity(accepted.account, accepted.server, accepted.credential, normalise_line_ends=False)
        reverse_path = Mailbox.parse(accepted.reverse_path, smtputf8=True) if accepted.reverse_path else None
        client = Client(accepted.client, 0, "", "resend", "HTTP", None, datetime.fromtimestamp(self._clock(), UTC))
        gate = self._gate
        gate.check(identity)
        gate.mail(identity, client, reverse_path, NO_PARAMETERS)
        gate.rcpt(identity, client, recipient, 0)
        writer = gate.open_content()
        try:
            await self._fill(writer, accepted, command)
            content = _without_trace(await writer.finish())
            eight_bit = not content.header.isascii() or not str(recipient.mailbox).isascii()
            envelope = Envelope(reverse_path, (recipient,), smtputf8=eight_bit, envid=accepted.envid or None)
            said = SubmissionContext(
                accepted.list or None, accepted.campaign or None, accepted.tag or None, accepted.metadata or None
            )

            def memo(made: Accepted) -> Answer:
                return Answer(key, self._clock(), made.message.encode())

            return Resent((await gate.submit(identity, client, envelope, content, said=said, memo=memo)).message)
        finally:
            writer.discard()

    async def _fill(self, writer: ContentWriter, accepted: Event, command: CommandRecord) -> None:
        try:
            content = (await self._spool.content(MessageId(accepted.message))).content
        except (Damaged, Unknown):
            writer.write(await self._from_console(accepted.message, command.id))
            await writer.drain()
            return
        writer.write(content.header + b"\r\n")
        if isinstance(content.body, bytes):
            writer.write(content.body)
            return
        file = await asyncio.to_thread(content.body.open, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_OCTETS):
                writer.write(chunk)
                if writer.needs_drain:
                    await writer.drain()
        finally:
            file.close()

    async def _from_console(self, message: str, command: str) -> bytes:
        try:
            return await self._client.octets(f"/link/content/{message}", {"command": command})
        except LinkDown as error:
            raise Refusal(Why.TEMPORARY, "the console does not answer", str(error)) from error
        except LinkRefused as error:
            raise Refusal(Why.BAD_CONTENT, "its content is not kept", str(error)) from error


def _recipient(accepted: Event, delivery: str) -> Recipient | None:
    told = zip_longest(accepted.recipients, accepted.deliveries, accepted.notify, accepted.orcpt, fillvalue="")
    for mailbox, own, notify, orcpt in told:
        if own == delivery and delivery:
            return Recipient(Mailbox.parse(mailbox, smtputf8=True), Notify.of(notify), orcpt or None)
    return None


def _without_trace(content: Content) -> Content:
    """Take away the one Received field that we put on top, so that sending again often is no mail loop."""
    header = content.header
    if header[: len(_OUR_TRACE)].lower() != _OUR_TRACE:
        return content
    end = header.find(b"\r\n")
    while header[end + 2 : end + 3] in {b" ", b"\t"}:
        end = header.find(b"\r\n", end + 2)
    return Content(header[end + 2 :], content.body, content.facts)
