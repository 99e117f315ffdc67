"""Our own delivery status notifications: the multipart/report that tells a sender what became of the mail.

RFC 6522 (the report), RFC 3464 (its fields), RFC 3461 s6 (what a DSN says and to whom), RFC 6533 (internationalised),
RFC 3834 (Auto-Submitted). The envelope is the caller's: a null reverse-path, always. Reading DSNs is in `report`.
Every text of a peer is escaped and bounded; no line is longer than 998 octets.
"""

import hashlib
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from postbud.mime.body import scan_body
from postbud.mime.date import format_date
from postbud.model.content import Content
from postbud.model.text import printable

MAX_RETURNED_OCTETS = 256 * 1024  # a larger original comes back as its header section only
MAX_DIAGNOSTIC = 500  # characters
MAX_VALUE = 900  # octets of a field that is not folded inside a word
_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")


class Action(Enum):
    """RFC 3464 s2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    DELIVERED = "delivered"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class DsnRecipient:
    """What became of one recipient. `original` is the ORCPT value, `addr-type;text`, decoded; `status` is `x.y.z`."""

    final: str
    action: Action
    status: str
    original: str | None = None
    remote_mta: str | None = None
    diagnostic: str | None = None  # the reply as it came, or our own words when `remote_mta` is None
    last_attempt_at: datetime | None = None
    will_retry_until: datetime | None = None


_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.RELAYED: "Your message was passed on",
    Action.DELIVERED: "Your message was delivered",
    Action.EXPANDED: "Your message was delivered to a list",
}
_OPENINGS = {
    Action.FAILED: "Your message could not be delivered to the recipients below, and we stopped trying.",
    Action.DELAYED: "Your message could not be delivered to the recipients below yet. We keep trying; no need to send again.",
    Action.RELAYED: "Your message was passed on for the recipients below, to a system that does not report delivery itself.",
    Action.DELIVERED: "Your message was delivered to the recipients below.",
    Action.EXPANDED: "Your message was delivered to the recipients below, which are lists that pass it on.",
}


def build_dsn(
    *,
    reporting_mta: str,
    sender: str,
    to: str,
    recipients: Sequence[DsnRecipient],
    message_id: str,
    at: datetime,
    original_header: bytes,
    original_body: bytes | None = None,
    full: bool = False,
    arrived_at: datetime | None = None,
    envid: str | None = None,
    subject: str = "",
    smtputf8: bool = False,
) -> Content:
    """Build a DSN about one message, for recipients with any actions; the first failure names it.

    `reporting_mta` is our host name, `sender` the mailbox in From, `to` the original reverse-path, `message_id` without
    angle brackets, `subject` the original's (decoded) for the person to recognise it. `full` returns the whole original if
    it is at most 256 KiB and `original_body` is given. `smtputf8`: the original needed SMTPUTF8, so its sender can read
    message/global types (RFC 6533).
    """
    headline = min((recipient.action for recipient in recipients), key=list(Action).index)
    boundary = f"=_{hashlib.sha256(message_id.encode() + original_header).hexdigest()[:32]}"
    whole = full and original_body is not None and len(original_header) + len(original_body) <= MAX_RETURNED_OCTETS
    kind = "global-" if smtputf8 else ""
    parts = [
        ("text/plain; charset=utf-8", _human_part(reporting_mta, recipients, subject, at, arrived_at)),
        (f"message/{kind}delivery-status", _machine_part(reporting_mta, recipients, arrived_at, envid, smtputf8=smtputf8)),
    ]
    if whole:
        returned = original_header + b"\r\n" + (original_body or b"")
        parts.append(("message/global" if smtputf8 else "message/rfc822", returned))
    else:
        parts.append(("message/global-headers" if smtputf8 else "text/rfc822-headers", original_header))
    body = b"".join(
        [
            *(
                b"--%s\r\n%s\r\n%s\r\n" % (boundary.encode("ascii"), _part_header(name, octets), octets)
                for name, octets in parts
            ),
            b"--%s--\r\n" % boundary.encode("ascii"),
        ]
    )
    facts = scan_body(body)
    header = "".join(
        [
            f"From: Mail Delivery System <{sender}>\r\n",
            f"To: <{to}>\r\n",
            f"Subject: {_SUBJECTS[headline]}\r\n",
            f"Date: {format_date(at)}\r\n",
            f"Message-ID: <{message_id}>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "MIME-Version: 1.0\r\n",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n',
            "Content-Transfer-Encoding: 8bit\r\n" if facts.eight_bit else "",
        ]
    )
    return Content(header.encode("utf-8"), body, facts)


def _part_header(content_type: str, octets: bytes) -> bytes:
    header = f"Content-Type: {content_type}\r\n"
    if not octets.isascii():
        header += "Content-Transfer-Encoding: 8bit\r\n"
    return header.encode("ascii")


def _human_part(
    reporting_mta: str, recipients: Sequence[DsnRecipient], subject: str, at: datetime, arrived_at: datetime | None
) -> bytes:
    """Say it in plain words, one paragraph for each action."""
    lines = [f"Hello, this is the mail system at {reporting_mta}.", ""]
    if subject:
        lines += _wrap(f"This is about your message '{printable(subject, 200)}'", "")
        lines += [f"that we received on {format_date(arrived_at or at)}.", ""]
    for action in Action:
        concerned = [recipient for recipient in recipients if recipient.action is action]
        if concerned:
            lines += [*_wrap(_OPENINGS[action], ""), ""]
            for recipient in concerned:
                lines += [*_about(recipient), ""]
    lines += ["The parts below tell the same to programs and name your original message.", ""]
    return "\r\n".join(lines).encode("utf-8", "replace")


def _about(recipient: DsnRecipient) -> list[str]:
    lines = [f"  {printable(recipient.final, 330)}"]
    if recipient.diagnostic:
        said = f"{printable(recipient.remote_mta, 255)} said: " if recipient.remote_mta else "Reason: "
        lines += _wrap(said + printable(recipient.diagnostic, MAX_DIAGNOSTIC), "    ")
    if recipient.will_retry_until is not None:
        lines.append(f"    We try until {format_date(recipient.will_retry_until)}.")
    return lines


def _machine_part(
    reporting_mta: str, recipients: Sequence[DsnRecipient], arrived_at: datetime | None, envid: str | None, *, smtputf8: bool
) -> bytes:
    """Write the per-message fields and one group of fields for each recipient (RFC 3464 s2.2, s2.3)."""
    fields = []
    if envid:
        fields.append(_field("Original-Envelope-Id", envid, smtputf8=False))
    fields.append(_field("Reporting-MTA", f"dns; {reporting_mta}", smtputf8=False))
    if arrived_at is not None:
        fields.append(f"Arrival-Date: {format_date(arrived_at)}\r\n")
    for recipient in recipients:
        fields.append("\r\n")
        if recipient.original:
            fields.append(_address_field("Original-Recipient", *_split_orcpt(recipient.original), smtputf8=smtputf8))
        fields.append(_address_field("Final-Recipient", "rfc822", recipient.final, smtputf8=smtputf8))
        fields.append(f"Action: {recipient.action.value}\r\nStatus: {recipient.status}\r\n")
        if recipient.remote_mta:
            fields.append(_field("Remote-MTA", f"dns; {recipient.remote_mta}", smtputf8=False))
        if recipient.diagnostic:
            kind = "smtp" if recipient.remote_mta else "x-postbud"
            said = printable(recipient.diagnostic, MAX_DIAGNOSTIC)
            fields.append(_field("Diagnostic-Code", f"{kind}; {said}", smtputf8=smtputf8, break_words=True))
        if recipient.last_attempt_at is not None:
            fields.append(f"Last-Attempt-Date: {format_date(recipient.last_attempt_at)}\r\n")
        if recipient.will_retry_until is not None:
            fields.append(f"Will-Retry-Until: {format_date(recipient.will_retry_until)}\r\n")
    return "".join(fields).encode("utf-8", "replace")


def _split_orcpt(original: str) -> tuple[str, str]:
    kind, separator, text = original.partition(";")
    return (kind.strip().lower(), text.strip()) if separator else ("rfc822", original)


def _address_field(name: str, kind: str, address: str, *, smtputf8: bool) -> str:
    """Write an address field; one beyond ASCII has type utf-8, and its ASCII form where that is asked (RFC 6533 s3)."""
    if address.isascii():
        return _field(name, f"{kind}; {address}", smtputf8=False)
    if not smtputf8:
        address = _XTEXT.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
    return _field(name, f"utf-8; {address}", smtputf8=smtputf8)


def _field(name: str, value: str, *, smtputf8: bool, break_words: bool = False) -> str:
    """Write one field, folded at white space; controls are escaped, and what is not ASCII unless allowed."""
    text = printable(value, MAX_VALUE)
    if not smtputf8:
        text = text.encode("ascii", "backslashreplace")[:MAX_VALUE].decode("ascii")
    return "\r\n ".join(_wrap(f"{name}: {text}", "", break_words=break_words)) + "\r\n"


def _wrap(text: str, indent: str, *, break_words: bool = True) -> list[str]:
    return textwrap.wrap(
        text, 76, initial_indent=indent, subsequent_indent=indent, break_long_words=break_words, break_on_hyphens=False
    )
