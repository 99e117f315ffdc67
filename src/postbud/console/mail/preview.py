"""A kept content as a person may look at it: header fields, text, HTML, attachments. Octets in, text out.

What senders wrote is never trusted: nothing here makes HTML safe, it is only shown in a sandbox that runs and loads nothing
(`PREVIEW_POLICY`). Invariant: whatever the octets are, there is an answer. RFC 5322, RFC 2045 to 2047.
"""

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage, MIMEPart

PREVIEW_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
MOST_CHARACTERS = 1_000_000  # of a body that is shown
_MOST_FIELDS = 200
_MOST_PARTS = 500
_MOST_VALUE = 4_000


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is no body: what it calls itself, and how large it is."""

    name: str
    kind: str
    octets: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What is in a content. `flawed`: it could not be read whole as MIME; then `text` may be all there is."""

    fields: list[tuple[str, str]]
    text: str
    html: str
    attachments: list[Attachment]
    flawed: bool = False


def preview(content: bytes) -> Preview:
    """Read a content for showing."""
    try:
        message = email.message_from_bytes(content, policy=email.policy.default)
        text = _body(message, "plain")
        html = _body(message, "html")
        return Preview(_fields(message), text, html, _attachments(message), flawed=bool(message.defects))
    except Exception:  # noqa: BLE001  # the parser of the library fails on some inputs in ways of its own: show them as they are
        return Preview([], content[:MOST_CHARACTERS].decode("utf-8", "replace"), "", [], flawed=True)


def _fields(message: EmailMessage) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in message.raw_items():
        if len(found) == _MOST_FIELDS:
            break
        found.append((name, _decoded(name, str(value))[:_MOST_VALUE]))
    return found


def _decoded(name: str, value: str) -> str:
    try:
        return str(email.policy.default.header_fetch_parse(name, value))
    except Exception:  # noqa: BLE001  # likewise
        return value


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return _text(part)[:MOST_CHARACTERS] if part is not None else ""


def _text(part: MIMEPart) -> str:
    octets = part.get_payload(decode=True)
    if not isinstance(octets, bytes):
        return ""
    charset = part.get_content_charset("utf-8")
    try:
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return octets.decode("utf-8", "replace")


def _attachments(message: EmailMessage) -> list[Attachment]:
    bodies = {id(part) for kind in ("plain", "html") if (part := message.get_body((kind,))) is not None}
    found = []
    for number, part in enumerate(message.walk()):
        if number == _MOST_PARTS:
            break
        if part.is_multipart() or id(part) in bodies:
            continue
        octets = part.get_payload(decode=True)
        found.append(Attachment(part.get_filename("") or "", part.get_content_type(), len(octets) if octets else 0))
    return found
