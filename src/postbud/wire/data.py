"""Reading content after 354: finds the one true end, takes the dots out once, and notices what must not be there.

Knows octets only, no header field and no reply. Only CRLF ends a line and only CRLF.CRLF ends content (RFC 5321 s4.1.1.4,
s2.3.8): a bare CR, a bare LF or a NUL never moves the end, it spoils the content, which is then read to its true end and
thrown away, so that nothing inside is ever run as a command. Everything is done by whole-buffer operations.

Invariant: however the octets are cut into pieces, the joined content, the flaw and the rest are the same.
"""

import re

from postbud.model.refusal import Why
from postbud.wire.line_ends import bare_ends, has_dotted_line

_END = b"\r\n.\r\n"
_FEW_DOTS = 64  # a header section's; text has more
_BARE_LF = re.compile(rb"(?<!\r)\n")


class DataReader:
    """Reads one content. `normalise` turns bare LF into CRLF instead of spoiling the content."""

    __slots__ = ("_bare", "_held", "_limit", "_normalise", "_nul", "_virtual", "ended", "octets", "rest")

    def __init__(self, limit_octets: int, *, normalise: bool = False) -> None:
        self._limit = limit_octets
        self._normalise = normalise
        self._held = b"\r\n"  # content begins at the start of a line: as if a CRLF had come before
        self._virtual = 2  # octets of `_held` that are not content
        self._bare = False
        self._nul = False
        self.octets = 0  # of content, dots taken out; counted on when it is spoiled
        self.ended = False
        self.rest = b""  # what came behind the end

    @property
    def flaw(self) -> Why | None:
        """What spoils the content so far. Too big weighs most, so that the answer does not depend on segments."""
        if self.octets > self._limit:
            return Why.TOO_BIG
        if self._nul:
            return Why.BAD_CONTENT
        return Why.BAD_LINE_ENDS if self._bare else None

    def feed(self, data: bytes) -> bytes:
        """Take octets, give content that is certain by now; nothing once it is spoiled. Sets `ended` and `rest` at the end."""
        data = self._held + data
        end = _find_end(data)
        if end >= 0:
            self.ended = True
            self.rest = data[end + 5 :]
            piece = data[: end + 2]
            self._held = b""
        else:
            keep = _tail(data)
            piece = data[: len(data) - keep]
            self._held = data[len(data) - keep :]
        return self._clean(piece) if piece else b""

    def _clean(self, piece: bytes) -> bytes:
        bare_cr, bare_lf = bare_ends(piece)
        if b"\0" in piece:
            self._nul = True
        if bare_cr or (bare_lf and not self._normalise):
            self._bare = True
        if has_dotted_line(piece):
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._virtual:
            piece, self._virtual = piece[self._virtual :], 0
        if bare_lf and self._normalise:
            piece = _BARE_LF.sub(b"\r\n", piece)
        self.octets += len(piece)
        return b"" if self.flaw else piece


def _find_end(data: bytes) -> int:
    """Give where the end begins, -1 without one. Large content has few dots, or so many that looking at each is no gain."""
    at = data.find(b".")
    for _ in range(_FEW_DOTS):
        if at < 0 or data[at - 2 : at + 3] == _END:
            return at - 2 if at >= 0 else -1
        at = data.find(b".", at + 1)
    return data.find(_END, max(at - 2, 0)) if at >= 0 else -1


def _tail(data: bytes) -> int:
    """Give how many octets at the end may be the beginning of the end; a CRLF is never cut in two."""
    for length in (4, 3, 2, 1):
        if data.endswith(_END[:length]):
            return length
    return 0
