"""Reads what comes back to a return path: DSNs, automatic replies, feedback reports, or none of them.

RFC 6522 and 3464 (DSN), RFC 6533 (its internationalised form), RFC 3834 (automatic replies), RFC 5965 and 8098 (feedback
and disposition reports, told apart only). Tolerant towards the many systems that write their own; strict budgets
(input H5); every text given out is one safe line of bounded length. Decides nothing: whether a report is believed, and
about whom, is the caller's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import re2

from postbud.mime.parts import Part, decode_transfer, find_field, split_parts
from postbud.mime.words import decode_charset, decode_words
from postbud.model.text import printable

MAX_RECIPIENTS = 1000
MAX_STATUS_OCTETS = 1 << 20  # of a delivery-status part that are read
MAX_TEXT_OCTETS = 64 * 1024  # of the part for people that are read
MAX_TEXT = 8000
_MAX_PARTS, _MAX_DEPTH = 50, 8
_MAX_BLOCK_OCTETS = 16 * 1024

_STATUS_TYPES = frozenset({b"message/delivery-status", b"message/global-delivery-status"})
_RETURNED_TYPES = frozenset({b"message/rfc822", b"text/rfc822-headers", b"message/global", b"message/global-headers"})
_EMPTY_LINES = re.compile(rb"\n(?:[ \t]*+\n)+")
_FIELD = re.compile(rb"^([A-Za-z][A-Za-z\-]*+)[ \t]*+:[ \t]*+([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
_STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
_TAG = re.compile(r"<[^<>]*+>")
_BOUNCE_FROM = re.compile(rb"(?:mailer-daemon|mail-daemon|mailerdaemon|postmaster|mail delivery (?:sub)?system)", re.IGNORECASE)
_BOUNCE_SUBJECT = re.compile(
    r"undeliver|non[- ]?delivery|delivery (?:status|failure|error|problem|report|has failed|incomplete|delayed|notification)"
    r"|returned (?:mail|to sender)|mail delivery|failure notice|could ?n[o']t be delivered|message not delivered"
    r"|unzustellbar|non remis|no se ha podido entregar|kunne ikke leveres|kan niet worden afgeleverd",
    re.IGNORECASE,
)
_AUTO_SUBJECT = re.compile(
    r"\s*(?:re: *)?\[?(?:auto(?:matic|mated|matisch\w*|matisk\w*)?[ :\-]*(?:re(?:ply|sponse|sponder)|antwort|svar|antwoord)"
    r"|out[ \-]of[ \-](?:the[ \-])?office|on vacation|vacation|away from|abwesen|ikke på kontoret|ikke til stede|fravær"
    r"|r[ée]ponse automatique|respuesta autom|resposta autom|risposta autom|自動返信|自动回复|自動応答)",
    re.IGNORECASE,
)
_COPY_BEGINS = re2.compile(  # RE2: runs of dashes would cost the backtracking engine their square
    r"(?im)^[ >\-=_*]*(?:this is a copy of|below this line is a copy|original message (?:follows|headers)|included is a copy"
    r"|(?:your )?(?:original|returned|unsent) message\b.{0,40}[:\-]+\s*$|-+ ?(?:message|text) header|return-path:|received: )"
)


class ReportKind(Enum):
    """What kind of automatic mail it is."""

    DSN = "dsn"  # with fields for at least one recipient
    TEXT_BOUNCE = "text_bounce"  # a bounce for people only
    AUTO_REPLY = "auto_reply"
    FEEDBACK_REPORT = "feedback_report"
    DISPOSITION = "disposition"


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient of a DSN. Texts of the peer: escaped, bounded, not checked further. Empty: not said."""

    final: str
    original: str
    action: str  # lower case: failed, delayed, delivered, relayed, expanded
    status: str  # "x.y.z"
    diagnostic: str
    remote_mta: str


@dataclass(frozen=True, slots=True)
class DsnReport:
    """What came back. `text` is what people were told, for classifying bounces without fields."""

    kind: ReportKind
    recipients: tuple[ReportedRecipient, ...] = ()
    truncated: bool = False  # there were more recipients, parts or octets than the budgets allow
    reporting_mta: str = ""
    envid: str = ""
    original_message_id: str = ""  # from the returned header section, without angle brackets
    text: str = ""
    ours: bool = False  # written by this host: our own DSN came back (input H4)


def parse_dsn(header: bytes, body: bytes, *, own_hostname: str = "") -> DsnReport | None:
    """Tell what kind of automatic mail this is and what it says; None is ordinary mail. Never fails; linear time."""
    split = split_parts(header, body, max_parts=_MAX_PARTS, max_depth=_MAX_DEPTH)
    by_type: dict[bytes, Part] = {}
    for part in split.parts:
        by_type.setdefault(part.content_type.name, part)
    report_type = split.parts[0].content_type.parameters.get(b"report-type", b"").lower()
    text = _text(split.parts, body)
    if b"message/feedback-report" in by_type or report_type == b"feedback-report":
        return DsnReport(ReportKind.FEEDBACK_REPORT, text=text)
    if b"message/disposition-notification" in by_type or report_type == b"disposition-notification":
        return DsnReport(ReportKind.DISPOSITION, text=text)
    status = next((by_type[name] for name in _STATUS_TYPES if name in by_type), None)
    message, recipients, cut = _read_status(status, body) if status else ({}, [], False)
    kind = ReportKind.DSN if recipients else _kind_without_fields(header, report_type)
    if kind is None:
        return None
    reporting_mta = _after_type(message.get(b"reporting-mta", ""))
    returned = next((part for part in split.parts if part.content_type.name in _RETURNED_TYPES), None)
    return DsnReport(
        kind,
        tuple(recipients),
        cut or not split.complete,
        reporting_mta,
        message.get(b"original-envelope-id", ""),
        _original_message_id(returned, body) if returned else "",
        text,
        bool(own_hostname) and reporting_mta.lower() == own_hostname.lower(),
    )


def _kind_without_fields(header: bytes, report_type: bytes) -> ReportKind | None:
    """Tell a bounce written for people from an automatic reply, by the header section alone."""
    sender = find_field(header, b"from") or b""
    subject = decode_words(find_field(header, b"subject") or b"")
    is_bounce = report_type == b"delivery-status" or find_field(header, b"x-failed-recipients") is not None
    if not is_bounce and _AUTO_SUBJECT.match(subject):
        return ReportKind.AUTO_REPLY
    if is_bounce or _BOUNCE_FROM.search(sender) or _BOUNCE_SUBJECT.search(subject):
        return ReportKind.TEXT_BOUNCE
    automatic = (find_field(header, b"auto-submitted") or b"no").lower()
    precedence = (find_field(header, b"precedence") or b"").lower()
    if not automatic.startswith(b"no") or precedence in {b"auto_reply", b"auto-reply"}:
        return ReportKind.AUTO_REPLY
    if find_field(header, b"x-autoreply") is not None or find_field(header, b"x-autorespond") is not None:
        return ReportKind.AUTO_REPLY
    return None


def _read_status(part: Part, body: bytes) -> tuple[dict[bytes, str], list[ReportedRecipient], bool]:
    """Read a delivery-status part: the message's fields, the recipients', and whether something was left unread."""
    octets = body[part.start : min(part.end, part.start + MAX_STATUS_OCTETS)]
    cut = part.end - part.start > MAX_STATUS_OCTETS
    plain = decode_transfer(octets, part.field(b"content-transfer-encoding")).replace(b"\r\n", b"\n").strip(b"\n")
    message: dict[bytes, str] = {}
    recipients: list[ReportedRecipient] = []
    for block in _blocks(plain):
        fields = _fields(block)
        if not message and (b"reporting-mta" in fields or b"original-envelope-id" in fields):
            message = fields
        if b"final-recipient" in fields or b"original-recipient" in fields or b"action" in fields:
            if len(recipients) >= MAX_RECIPIENTS:
                return message, recipients, True
            recipients.append(_recipient(fields))
    return message, recipients, cut


def _blocks(plain: bytes) -> Iterator[bytes]:
    start = 0
    for gap in _EMPTY_LINES.finditer(plain):
        yield plain[start : gap.start()][:_MAX_BLOCK_OCTETS]
        start = gap.end()
    yield plain[start:][:_MAX_BLOCK_OCTETS]


def _fields(block: bytes) -> dict[bytes, str]:
    fields: dict[bytes, str] = {}
    for match in _FIELD.finditer(block):
        value = re.sub(rb"\n[ \t]*", b" ", match[2]).strip(b" \t")
        fields.setdefault(match[1].lower(), printable(value))
    return fields


def _recipient(fields: dict[bytes, str]) -> ReportedRecipient:
    status = _STATUS.search(fields.get(b"status", ""))
    return ReportedRecipient(
        final=_after_type(fields.get(b"final-recipient", "")),
        original=_after_type(fields.get(b"original-recipient", "")),
        action=fields.get(b"action", "").partition(" ")[0].lower(),
        status=status[0] if status else "",
        diagnostic=fields.get(b"diagnostic-code", ""),
        remote_mta=_after_type(fields.get(b"remote-mta", "")),
    )


def _after_type(value: str) -> str:
    """Give what follows `type;`, without angle brackets."""
    return value.rpartition(";")[2].strip().removeprefix("<").removesuffix(">")


def _original_message_id(returned: Part, body: bytes) -> str:
    octets = body[returned.start : min(returned.end, returned.start + MAX_TEXT_OCTETS)]
    octets = decode_transfer(octets, returned.field(b"content-transfer-encoding"))
    header = octets.partition(b"\r\n\r\n")[0]
    return printable(find_field(header, b"message-id") or b"").removeprefix("<").removesuffix(">")


def _text(parts: list[Part], body: bytes) -> str:
    """Give what the first text part says, up to where it begins to repeat the original."""
    part = next((part for part in parts if part.content_type.kind == b"text" and not part.is_multipart), None)
    if part is None or part.content_type.name in _RETURNED_TYPES:
        return ""
    octets = body[part.start : min(part.end, part.start + MAX_TEXT_OCTETS)]
    octets = decode_transfer(octets, part.field(b"content-transfer-encoding"))
    charset = part.content_type.parameters.get(b"charset", b"utf-8").decode("ascii", "replace")
    text = decode_charset(octets, charset) or octets.decode("utf-8", "replace")
    if part.content_type.subtype == b"html":
        text = _TAG.sub(" ", text)
    copy = _COPY_BEGINS.search(text)
    return printable(" ".join((text[: copy.start()] if copy else text).split()), MAX_TEXT)
