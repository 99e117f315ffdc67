"""One mail transaction as a client means it: reverse-path, recipients with their DSN wishes, and the content in pieces.

Pure values. Content lines end in CRLF and are not dot-stuffed. RFC 5321 s3.3, RFC 3461.
"""

from dataclasses import dataclass
from pathlib import Path

from postbud.model.envelope import DEFAULT_NOTIFY, Notify


@dataclass(frozen=True, slots=True)
class RecipientLine:
    """One RCPT. `orcpt` is `addr-type;address`, not xtext-encoded."""

    mailbox: str
    notify: Notify = DEFAULT_NOTIFY
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What goes out: `prepended` + `header` + CRLF + `body`. `reverse_path` "" is the null one."""

    reverse_path: str
    recipients: tuple[RecipientLine, ...]
    prepended: bytes
    header: bytes
    body: bytes | Path
    octets: int  # of the content as sent, before dot-stuffing; for SIZE
    eight_bit: bool = False
    smtputf8: bool = False
    require_tls: bool = False
    ret_full: bool | None = None  # RET=FULL, RET=HDRS; None: not said
    envid: str | None = None
