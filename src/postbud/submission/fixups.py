"""Fix-ups: everything that accepting changes in a header section, and nothing else (RFC 6409 s8; table: `docs/headers.md`).

Removed: submission fields, Bcc, Return-Path, and authentication results and signatures that claim to be ours. Added when
missing: Date, Message-ID, Sender (only beside a From of several mailboxes). Prepended: Received. Every other octet stays as
it came (P4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from postbud.mime.date import format_date
from postbud.mime.header import Field, HeaderSection
from postbud.model.mailbox import Mailbox
from postbud.submission.context import PREFIX

_REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_OURS_IF_NAMED = frozenset({b"authentication-results", b"arc-authentication-results", b"received-spf"})


@dataclass(frozen=True, slots=True)
class FixedUp:
    """A header section after the fix-ups, without Received, and the Message-ID it ended with."""

    header: bytes
    message_id: str


def fix_up(
    section: HeaderSection,
    *,
    hostname: bytes,
    signing_domain: bytes,
    selectors: frozenset[bytes],
    from_mailboxes: tuple[Mailbox, ...],
    new_message_id: Callable[[], str],
    now: datetime,
) -> FixedUp:
    """Apply the fix-ups. `new_message_id` gives left@right without angle brackets."""
    kept = section.octets
    removed = [
        field
        for field in section.fields
        if _removed(field, hostname) or (field.name == b"dkim-signature" and _ours(field, signing_domain, selectors))
    ]
    if removed:
        kept = b"".join([field.raw for field in section.fields if field not in removed])
    added = b""
    if not section.count(b"date"):
        added += f"Date: {format_date(now)}\r\n".encode("ascii")
    message_id = section.value(b"message-id")
    if message_id is None:
        message_id = f"<{new_message_id()}>".encode()
        added += b"Message-ID: " + message_id + b"\r\n"
    if len(from_mailboxes) > 1 and not section.count(b"sender"):
        added += f"Sender: {from_mailboxes[0]}\r\n".encode()
    return FixedUp(added + kept, message_id.decode("utf-8", "replace"))


def _ours(field: Field, signing_domain: bytes, selectors: frozenset[bytes]) -> bool:
    """Whether a DKIM-Signature names our domain and one of our selectors: only we sign with those (policy C7)."""
    tags: dict[bytes, bytes] = {}
    for tag in field.value.split(b";"):
        name, _, value = tag.partition(b"=")
        tags.setdefault(name.strip(), value.strip().lower())
    return tags.get(b"d") == signing_domain and tags.get(b"s") in selectors


def _removed(field: Field, hostname: bytes) -> bool:
    name = field.name
    if name in _REMOVED or name.startswith(PREFIX):
        return True
    return name in _OURS_IF_NAMED and hostname in field.value.lower()
