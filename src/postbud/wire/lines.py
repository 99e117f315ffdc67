"""Cutting what a client sends into command lines. Only CRLF ends a line (RFC 5321 s2.3.8); memory is bounded.

A bare LF is answered at once, so that nobody waits for ever, but what stands behind it up to the next CRLF belongs to the same
line and is dropped: a mailbox with an LF in it can then never bring a command of its own along (row E3).
Invariant: however the octets are cut into pieces, the same lines and troubles come out.
"""

from enum import Enum

MAX_UNENDED_OCTETS = 65_536  # a line that does not end by then is no SMTP (row D1)


class Trouble(Enum):
    """What came instead of a line."""

    BARE_LF = "bare_lf"
    ENDLESS = "endless"


class LineReader:
    """The octets that are not read yet."""

    __slots__ = ("_at", "_buffer", "_tainted")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._tainted = False  # the line began before a bare LF

    def __len__(self) -> int:
        return len(self._buffer) - self._at

    def starts_with(self, octets: bytes) -> bool:
        """Tell whether what is unread begins so, in any letter case."""
        return self._buffer[self._at : self._at + len(octets)].upper() == octets

    def feed(self, octets: bytes) -> None:
        """Add octets."""
        self._buffer = self._buffer[self._at :] + octets if self._buffer else octets
        self._at = 0

    def take(self) -> bytes:
        """Give everything that is unread; nothing is unread after it, and the next line begins anew."""
        octets, self._buffer, self._at, self._tainted = self._buffer[self._at :], b"", 0, False
        return octets

    def next(self) -> bytes | Trouble | None:
        """Give the next line without CRLF, or trouble; None until more comes."""
        while True:
            end = self._buffer.find(b"\n", self._at)
            if (len(self) if end < 0 else end - self._at) >= MAX_UNENDED_OCTETS:
                return Trouble.ENDLESS
            if end < 0:
                return None
            line, self._at = self._buffer[self._at : end], end + 1
            if self._at == len(self._buffer):
                self._buffer, self._at = b"", 0
            if line[-1:] != b"\r":
                self._tainted = True
                return Trouble.BARE_LF
            if not self._tainted:
                return line[:-1]
            self._tainted = False
