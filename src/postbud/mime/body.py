"""The body in one pass: what signing, limits and the next hop must know of it (RFC 6376 s3.4.4, RFC 5322 s2.1.1).

Owns: the relaxed canonical hash, and whether there are octets above 127, NULs and long lines; whole (`scan_body`) or in
pieces (`BodyScanner`), with the same answer. Does not know parts (`parts`) nor how a body is changed (`transfer`).
Invariant: no Python work per line or octet, and memory does not follow the input.
"""

import hashlib
import re

from postbud.model.content import BodyFacts

MAX_LINE_OCTETS = 998  # without CRLF, RFC 5322 s2.1.1
WHOLE_OCTETS = 1 << 20  # bodies up to this size are scanned in one go
_STEP = 1 << 18
_REVERSED_LINE_ENDS = re.compile(rb"(?:\n\r)++")
_CRLF_BLOCK = b"\r\n" * 8192


def squeeze(octets: bytes) -> bytes:
    """Reduce runs of white space to one space and drop it before CRLF (relaxed, RFC 6376 s3.4.4 a).

    Looks only where the spaces are: base64 has none, and makes most of large bodies.
    """
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    first, end = octets.find(b" "), octets.rfind(b" ") + 1
    if not end:
        return octets
    if octets.find(b"  ", first, end) >= 0:
        octets = octets.replace(b"  ", b" ")
        while b"  " in octets:
            octets = octets.replace(b"  ", b" ")
        end = len(octets)
    return octets.replace(b" \r\n", b"\r\n") if octets.find(b" \r\n", first, end + 2) >= 0 else octets


def line_ends(octets: bytes) -> int:
    """Tell how many octets at the end are CRLF after CRLF; a bare CR or LF is content."""
    reversed_run = _REVERSED_LINE_ENDS.match(octets[::-1])
    return reversed_run.end() if reversed_run else 0


def scan_body(body: bytes) -> BodyFacts:
    """Tell the facts of a whole body."""
    if len(body) <= WHOLE_OCTETS and body[-2:] == b"\r\n":
        canonical = squeeze(body)
        content = canonical.rstrip(b"\r\n ")
        if content and canonical == content + b"\r\n":
            return BodyFacts(
                len(body),
                hashlib.sha256(canonical).digest(),
                not body.isascii(),
                b"\0" in body,
                _has_long_line(body),
            )
    scanner = BodyScanner()
    for start in range(0, len(body), _STEP):
        scanner.feed(body[start : start + _STEP])
    return scanner.facts()


def _has_long_line(body: bytes) -> bool:
    """Go through a body that ends in CRLF by the last line end within each reach of a line and its own."""
    at, last = 0, len(body) - MAX_LINE_OCTETS - 2
    while at < last:
        at = body.rfind(b"\r\n", at, at + MAX_LINE_OCTETS + 2) + 2
        if at == 1:
            return True
    return False


class BodyScanner:
    """Scans a body that comes in pieces; the answer does not depend on where they were cut."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._octets = 0
        self._eight_bit = False
        self._nul = False
        self._longest = 0
        self._line = 0  # octets of the unfinished line, without `_line_cr`
        self._line_cr = b""  # CR at the end of the last piece: half a line end, or not
        self._tail = b""  # "", " ", CR or " CR": white space that the next piece explains
        self._empty_lines = 0  # line ends that count only if something follows
        self._started = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        if not chunk:
            return
        self._octets += len(chunk)
        self._eight_bit = self._eight_bit or not chunk.isascii()
        self._nul = self._nul or b"\0" in chunk
        self._measure_lines(chunk)
        canonical = squeeze(self._tail + chunk)
        content = canonical.rstrip(b" \r\n")
        self._trail(content, canonical[len(content) :])

    def facts(self) -> BodyFacts:
        """Give the facts of everything fed."""
        end = self._hash.copy()
        if self._tail.endswith(b"\r"):
            self._add_line_ends(end)
            end.update(self._tail)
        if self._started or self._tail.endswith(b"\r"):
            end.update(b"\r\n")
        longest = max(self._longest, self._line + len(self._line_cr))
        return BodyFacts(self._octets, end.digest(), self._eight_bit, self._nul, longest > MAX_LINE_OCTETS)

    def _measure_lines(self, chunk: bytes) -> None:
        data = self._line_cr + chunk
        if data.endswith(b"\r"):
            self._line_cr, data = b"\r", data[:-1]
        else:
            self._line_cr = b""
        lines = data.split(b"\r\n")
        first = self._line + len(lines[0])
        self._longest = max(self._longest, first, *map(len, lines[1:]))
        self._line = len(lines[-1]) if len(lines) > 1 else first

    def _trail(self, content: bytes, blanks: bytes) -> None:
        """Hash content, and of the blanks behind it what cannot be the end of the body; keep the rest for later."""
        kept = len(blanks)
        if blanks.endswith(b"\r"):
            kept -= 1
        if blanks[:kept].endswith(b" "):
            kept -= 1
        tail = blanks[kept:]
        rest = blanks[:kept]
        ends = line_ends(rest)
        solid = content + rest[: len(rest) - ends]
        if solid:
            self._add_line_ends(self._hash)
            self._hash.update(solid)
            self._started = True
            self._empty_lines = 0
        self._empty_lines += ends // 2
        self._tail = tail

    def _add_line_ends(self, target: "hashlib._Hash") -> None:
        left = self._empty_lines * 2
        while left > 0:
            target.update(_CRLF_BLOCK[:left])
            left -= len(_CRLF_BLOCK)
