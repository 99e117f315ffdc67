"""Received fields: the one we add, and how many there are (RFC 5321 s4.4, s6.3; `with` words of RFC 3848 and 6531).

What a peer said of itself is bounded and reduced to characters that cannot end a field, a comment or a line.
"""

import re
from datetime import datetime

from postbud.mime.date import format_date
from postbud.mime.header import HeaderSection

MAX_RECEIVED = 100  # RFC 5321 s6.3
MAX_OWN = 3

_HELO = re.compile(r"[A-Za-z0-9._\-]{1,255}|\[[A-Za-z0-9:.]{1,60}\]")
_UNSAFE = re.compile(r"[^A-Za-z0-9 !#$%&'*+,\-./:=?@^_`{|}~\[\]]")


def received_field(
    *,
    helo: str,
    client_address: str,
    hostname: str,
    protocol: str,
    message_id: str,
    at: datetime,
    recipient: str | None = None,
    tls: str | None = None,
) -> bytes:
    """Give the Received field of a message that we accept, folded.

    `message_id` is our own id of the message; `recipient` is named only when the transaction has that one alone.
    """
    source = f"[IPv6:{client_address}]" if ":" in client_address else f"[{client_address}]"
    if _HELO.fullmatch(helo):
        source = f"{helo} ({source})"
    elif helo:
        source = f"{source} (helo {_safe(helo, 40)})"
    lines = [f"Received: from {source}"]
    if tls:
        lines.append(f"(using {_safe(tls, 60)})")
    lines += [f"by {hostname} with {protocol}", f"id {message_id}"]
    if recipient is not None and recipient.isascii() and recipient.isprintable():
        lines.append(f"for <{recipient}>")
    lines[-1] += ";"
    lines.append(format_date(at))
    return "\r\n ".join(lines).encode("ascii") + b"\r\n"


def is_looping(section: HeaderSection, hostname: str) -> bool:
    """Tell whether the message went round: 100 Received fields, or three that our own host added (input G5)."""
    fields = section.get_all(b"received")
    if len(fields) < MAX_OWN:
        return False
    if len(fields) >= MAX_RECEIVED:
        return True
    own = re.compile(rb"(?:^|[ \t])by[ \t]+%s(?:[ \t;]|$)" % re.escape(hostname.lower().encode("ascii")))
    return sum(own.search(field.value.lower()) is not None for field in fields) >= MAX_OWN


def _safe(text: str, limit: int) -> str:
    return _UNSAFE.sub("?", text[:limit])
