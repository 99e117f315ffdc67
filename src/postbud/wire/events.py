"""What a server session says to its application, what it announces, and how a reply line is written.

Values only; their order and meaning are `wire.server`'s.
"""

from dataclasses import dataclass

import msgspec

from postbud.model.envelope import MailParameters, Recipient
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Why
from postbud.wire.command import CONTROL
from postbud.wire.sasl import Credentials

MAX_REPLY_OCTETS = 512  # RFC 5321 s4.5.3.1.5


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one session announces."""

    hostname: str
    size_limit_octets: int
    recipients_limit: int
    auth: bool = True  # AUTH exists here at all
    auth_without_tls: bool = False
    starttls: bool = False
    tls: bool = False  # the session begins inside TLS
    strict_greeting: bool = False  # refuse who talks on before our answer to the first EHLO or HELO (row D3)


class StartTls(msgspec.Struct, frozen=True):
    """The client wants TLS. After `accept` send, do the handshake, call `tls_started`."""


class Authenticate(msgspec.Struct, frozen=True):
    """The client gave a name and secret."""

    credentials: Credentials


class SecretExposed(msgspec.Struct, frozen=True):
    """The client sent a secret on a cleartext session, and was refused. Needs no answer."""

    username: str


class Mail(msgspec.Struct, frozen=True):
    """MAIL; a reverse-path of None is the null one."""

    reverse_path: Mailbox | None
    parameters: MailParameters


class Rcpt(msgspec.Struct, frozen=True):
    """RCPT."""

    recipient: Recipient


class Data(msgspec.Struct, frozen=True):
    """DATA, with at least one recipient accepted."""


class ContentChunk(msgspec.Struct, frozen=True):
    """Octets of content, dots taken out. Needs no answer."""

    octets: bytes


class EndOfData(msgspec.Struct, frozen=True):
    """The content is over; with a flaw it must be refused and the session closed."""

    flaw: Why | None


Event = StartTls | Authenticate | SecretExposed | Mail | Rcpt | Data | ContentChunk | EndOfData


def reply_line(code: int, enhanced: str, text: str) -> bytes:
    """Give one whole reply line: printable ASCII, at most 512 octets."""
    line = f"{code} {enhanced} {text}".encode("ascii", "replace")[: MAX_REPLY_OCTETS - 2]
    return CONTROL.sub(b"?", line) + b"\r\n"
