"""Outcomes: what became of one attempt for one delivery. Values, matched with `assert_never`.

Failure has a scope (Postfix): it is about the recipient, the message or the site.
"""

from dataclasses import dataclass, field
from enum import Enum


class Scope(Enum):
    """What a failure is about."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class Reply:
    """A peer's reply: three digits, the lines' texts without code (decoded, escaped, bounded), enhanced code when given."""

    code: int
    lines: tuple[str, ...]
    enhanced: str | None = None  # "x.y.z", RFC 3463

    @property
    def text(self) -> str:
        """All on one line, as a log shows it."""
        return " ".join((str(self.code), *([self.enhanced] if self.enhanced else ()), *self.lines)).rstrip()


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom an attempt spoke to and how."""

    host: str = ""
    address: str = ""
    site: str = ""
    source: str = ""
    tls: str = ""  # "TLSv1.3 TLS_AES_256_GCM_SHA384 unverified" or empty on cleartext


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next hop said 2yz to the final dot."""

    reply: Reply
    peer: Peer
    dsn_relayed: bool = False  # DSN parameters were passed on to a next hop that knows them (RFC 3461 s5.2)


@dataclass(frozen=True, slots=True)
class Deferred:
    """Try again later. `reply` None: no reply came (connection, DNS, TLS, our own doubt)."""

    why: str  # one safe line
    enhanced: str
    scope: Scope
    reply: Reply | None = None
    peer: Peer = field(default_factory=Peer)
    transcript: str = ""
    unknown_after_dot: bool = False


@dataclass(frozen=True, slots=True)
class Bounced:
    """Never again: the subject of the failure is bad for good."""

    why: str
    enhanced: str
    scope: Scope
    reply: Reply | None = None
    peer: Peer = field(default_factory=Peer)
    transcript: str = ""


Outcome = Delivered | Deferred | Bounced
