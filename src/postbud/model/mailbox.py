"""The one strict mailbox parser: envelope, header fields, directory and API all come through here.

`Mailbox.parse` takes `local-part@domain` without angle brackets (RFC 5321 s4.1.2, with SMTPUTF8 RFC 6531 s3.3) and
nothing else: no comments, no source routes, no encoded words decoded, no folding. A value that exists is valid.
Domains are kept as lower-case A-labels (IDNA 2008, UTS 46 mapping), local parts as they came.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import idna

from postbud.model.text import is_deceptive

MAX_LOCAL_OCTETS = 64  # RFC 5321 s4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 s4.5.3.1.2
MAX_PATH_OCTETS = 256  # RFC 5321 s4.5.3.1.3, with the angle brackets

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_UTF8_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_UTF8_DOT_STRING = re.compile(rf"{_UTF8_ATOM}(?:\.{_UTF8_ATOM})*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
_UTF8_QUOTED = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_LDH_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")
_UNQUOTE = re.compile(r"\\(.)", re.DOTALL)


class Flaw(Enum):
    """What is wrong with a mailbox; each face maps it to its own code."""

    SYNTAX = "syntax"
    LOCAL_PART = "local_part"
    DOMAIN = "domain"
    LITERAL = "literal"
    NEEDS_SMTPUTF8 = "needs_smtputf8"
    TOO_LONG = "too_long"


class MailboxError(ValueError):
    """The text is no mailbox; `flaw` says why."""

    def __init__(self, flaw: Flaw, why: str) -> None:
        super().__init__(why)
        self.flaw = flaw
        self.why = why


@lru_cache(maxsize=16384)
def parse_domain(text: str) -> str:
    """Give the canonical form of a host or mail domain: lower-case A-labels, fully qualified.

    Raises:
        MailboxError: No valid domain (`Flaw.DOMAIN`), longer than 255 octets, or of one label only.
    """
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise MailboxError(Flaw.DOMAIN, "domain is no valid internationalised name") from error
    lowered = text.lower()
    if len(lowered) > MAX_DOMAIN_OCTETS - 2:  # the wire form has a length octet before the first label and a root label
        raise MailboxError(Flaw.DOMAIN, "domain is too long")
    if not _LDH_DOMAIN.fullmatch(lowered):
        raise MailboxError(Flaw.DOMAIN, "domain is not a fully qualified host name")
    if lowered.rpartition(".")[2].isdigit():
        raise MailboxError(Flaw.DOMAIN, "the last label of a domain is not a number")
    if "xn--" in lowered or "--" in lowered:
        _check_a_labels(lowered)
    return lowered


def _check_a_labels(domain: str) -> None:
    for label in domain.split("."):
        if label[2:4] == "--" and not label.startswith("xn--"):
            raise MailboxError(Flaw.DOMAIN, "hyphens in the third and fourth place are reserved")
        if not label.startswith("xn--"):
            continue
        try:
            decoded = idna.decode(label)
        except (idna.IDNAError, UnicodeError) as error:
            raise MailboxError(Flaw.DOMAIN, "an A-label does not decode") from error
        if is_deceptive(decoded):
            raise MailboxError(Flaw.DOMAIN, "a label mixes scripts or hides characters")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """local-part@domain. Equality is by octets of the local part and the canonical domain."""

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str, *, smtputf8: bool = False) -> "Mailbox":
        """Parse `local-part@domain`.

        Raises:
            MailboxError: Its `flaw` says what is wrong.
        """
        if not text.isascii():
            if not smtputf8:
                raise MailboxError(Flaw.NEEDS_SMTPUTF8, "mailbox is not ASCII")
            if is_deceptive(text, mixed_scripts=False):
                raise MailboxError(Flaw.SYNTAX, "mailbox hides characters")
        local_part, at, domain = text.rpartition("@")
        if not at or not local_part or not domain:
            raise MailboxError(Flaw.SYNTAX, "mailbox is not local-part@domain")
        if domain[0] == "[":
            _parse_literal(domain)
            raise MailboxError(Flaw.LITERAL, "address literals are not mailed to")
        _check_local_part(local_part)
        canonical = parse_domain(domain)
        if len(local_part.encode()) + len(canonical) + 3 > MAX_PATH_OCTETS:
            raise MailboxError(Flaw.TOO_LONG, "path is longer than 256 octets")
        return cls(local_part, canonical)

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the mailbox can only be named with SMTPUTF8."""
        return not self.local_part.isascii()

    def key(self) -> str:
        """Give the form that is hashed: lower case, NFC, A-label domain; no plus or dot folding."""
        local_part = self.local_part
        if local_part[0] == '"':
            local_part = _UNQUOTE.sub(r"\1", local_part[1:-1])
        return f"{unicodedata.normalize('NFC', local_part).lower()}@{self.domain}"


def _check_local_part(local_part: str) -> None:
    if len(local_part.encode()) > MAX_LOCAL_OCTETS:
        raise MailboxError(Flaw.TOO_LONG, "local part is longer than 64 octets")
    ascii_only = local_part.isascii()
    if local_part[0] == '"':
        if not (_QUOTED if ascii_only else _UTF8_QUOTED).fullmatch(local_part):
            raise MailboxError(Flaw.LOCAL_PART, "quoted local part is malformed")
        return
    if not (_DOT_STRING if ascii_only else _UTF8_DOT_STRING).fullmatch(local_part):
        raise MailboxError(Flaw.SYNTAX, "local part is malformed")


def _parse_literal(text: str) -> None:
    inner = text[1:-1] if text.endswith("]") else ""
    try:
        if inner[:5].lower() == "ipv6:":
            IPv6Address(inner[5:])
        else:
            IPv4Address(inner)
    except ValueError as error:
        raise MailboxError(Flaw.SYNTAX, "address literal is malformed") from error
