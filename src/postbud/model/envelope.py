"""The envelope of a message: who gets the bounces, who gets the mail, and what the client asked of us (RFC 5321, 3461)."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import msgspec

from postbud.model.mailbox import Mailbox


class Body(Enum):
    """BODY parameter of MAIL, RFC 6152."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Notify(msgspec.Struct, frozen=True, omit_defaults=True):
    """NOTIFY of one recipient, RFC 3461 s4.1. The default (nothing said) is failure and delay."""

    never: bool = False
    success: bool = False
    failure: bool = True
    delay: bool = True
    said: bool = False

    @property
    def words(self) -> str:
        """The parameter's value; empty when nothing was said."""
        if self.never or not self.said:
            return "NEVER" if self.never else ""
        wishes = (("SUCCESS", self.success), ("FAILURE", self.failure), ("DELAY", self.delay))
        return ",".join(word for word, wished in wishes if wished) or "NEVER"

    @classmethod
    def of(cls, words: str) -> "Notify":
        """Give back what `words` was made of."""
        if not words:
            return DEFAULT_NOTIFY
        said = words.split(",")
        return cls("NEVER" in said, "SUCCESS" in said, "FAILURE" in said, "DELAY" in said, said=True)


DEFAULT_NOTIFY = Notify()


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path with its DSN parameters. `orcpt` is `addr-type;xtext-decoded` as the client gave it."""

    mailbox: Mailbox
    notify: Notify = DEFAULT_NOTIFY
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL and RCPT said. `reverse_path` None is the null reverse-path."""

    reverse_path: Mailbox | None
    recipients: tuple[Recipient, ...]
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    require_tls: bool = False
    ret_full: bool | None = None  # RET=FULL, RET=HDRS; None: not said
    envid: str | None = None
    size_declared: int | None = None


@dataclass(frozen=True, slots=True)
class MailParameters:
    """The parameters of one MAIL command (RFC 1870, 3461, 4954, 6152, 6531, 8689). `auth` is "<>" or a mailbox's text."""

    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    require_tls: bool = False
    ret_full: bool | None = None  # RET=FULL, RET=HDRS; None: not said
    envid: str | None = None  # decoded xtext
    auth: str | None = None


NO_PARAMETERS = MailParameters()


@dataclass(frozen=True, slots=True)
class Client:
    """Who is speaking: as seen by us. `helo` is the peer's own claim."""

    address: str
    port: int
    helo: str
    listener: str
    protocol: str  # the `with` word: SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA, UTF8SMTP… (RFC 3848, 6531)
    tls: str | None  # version and cipher, None on cleartext
    received_at: datetime
