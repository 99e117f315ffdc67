"""Facts: what the rules may know of a message. Gathered once, from the header section, the envelope and the directory.

Owns the shape of `Facts`; knows no rule. No body text is in here. Field order of a header section is kept by the scanner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from postbud.mime.address import AddressError, NamedMailbox, parse_mailbox_list
from postbud.mime.date import parse_date
from postbud.mime.header import HeaderSection
from postbud.model.account import Kind
from postbud.model.mailbox import Mailbox

SINGLETONS = (  # RFC 5322 s3.6: at most one of each
    b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"date", b"message-id", b"in-reply-to", b"references", b"subject",
    b"mime-version", b"content-type", b"content-transfer-encoding",
)  # fmt: skip
_MAX_MAILBOXES = 1000


@dataclass(frozen=True, slots=True)
class AddressField:
    """An address field as parsed; `problem` says why it is none."""

    present: bool
    mailboxes: tuple[NamedMailbox, ...] = ()
    problem: str | None = None


ABSENT = AddressField(present=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a rule may look at."""

    kind: Kind
    reverse_path: Mailbox | None
    recipients: tuple[Mailbox, ...]
    from_field: AddressField
    sender: AddressField
    reply_to: AddressField
    to: AddressField
    cc: AddressField
    duplicates: tuple[str, ...]  # names of singleton fields that stand more than once
    date: str | None
    date_at: datetime | None
    message_id: str | None
    received_at: datetime
    covered: Callable[[str], bool]  # whether the account may send for a domain
    allow_from: tuple[str, ...]


def gather(
    section: HeaderSection,
    *,
    kind: Kind,
    reverse_path: Mailbox | None,
    recipients: tuple[Mailbox, ...],
    received_at: datetime,
    covered: Callable[[str], bool],
    allow_from: tuple[str, ...] = (),
) -> Facts:
    """Gather the facts of one message. Never raises: what does not parse is a fact too."""
    date = section.value(b"date")
    return Facts(
        kind=kind,
        reverse_path=reverse_path,
        recipients=recipients,
        from_field=_addresses(section, b"from"),
        sender=_addresses(section, b"sender"),
        reply_to=_addresses(section, b"reply-to"),
        to=_addresses(section, b"to") if kind is Kind.MARKETING else ABSENT,
        cc=_addresses(section, b"cc") if kind is Kind.MARKETING else ABSENT,
        duplicates=tuple(name.decode() for name in section.repeated(SINGLETONS)),
        date=date.decode("utf-8", "replace") if date is not None else None,
        date_at=parse_date(date) if date is not None else None,
        message_id=_text(section, b"message-id"),
        received_at=received_at,
        covered=covered,
        allow_from=allow_from,
    )


def _text(section: HeaderSection, name: bytes) -> str | None:
    value = section.value(name)
    return value.decode("utf-8", "replace") if value is not None else None


def _addresses(section: HeaderSection, name: bytes) -> AddressField:
    value = section.value(name)
    if value is None:
        return ABSENT
    try:
        return AddressField(present=True, mailboxes=tuple(parse_mailbox_list(value, _MAX_MAILBOXES)))
    except AddressError as error:
        return AddressField(present=True, problem=str(error))
