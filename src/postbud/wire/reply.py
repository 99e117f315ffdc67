"""Reading a peer's replies: octets in, `Reply` values out, within limits. RFC 5321 s4.2, RFC 2034.

Knows nothing of commands or sockets. A peer that breaks the grammar is not guessed at: what follows could be injected,
so the reader stays broken and the caller hangs up and defers (K1, K4). Fed whole or octet by octet it says the same.
"""

import re

from postbud.model.outcome import Reply
from postbud.model.text import printable

MAX_LINE_OCTETS = 4096  # RFC 5321 s4.5.3.1.5 allows 512; real peers send more
MAX_LINES = 100
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\x00\r]*))?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")


class ReplyError(Exception):
    """The peer's octets are no reply, or come when none was asked for. `enhanced` is what a deferral should say."""

    def __init__(self, why: str, enhanced: str = "4.5.0") -> None:
        super().__init__(why)
        self.why = why
        self.enhanced = enhanced


class ReplyReader:
    """Collects octets and gives whole replies, one at a time."""

    __slots__ = ("_buffer", "_code", "_error", "_lines")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code: bytes = b""
        self._lines: list[bytes] = []
        self._error: ReplyError | None = None

    def feed(self, octets: bytes) -> None:
        """Take what came from the peer."""
        self._buffer += octets

    @property
    def empty(self) -> bool:
        """Whether nothing waits, not even part of a reply."""
        return not self._buffer and not self._lines

    def next_reply(self) -> Reply | None:
        """Give the next whole reply, or None when more octets are needed.

        Raises:
            ReplyError: Malformed or beyond a limit; from then on always.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._read()
        except ReplyError as error:
            self._error = error
            raise

    def _read(self) -> Reply | None:
        while True:
            end = self._buffer.find(b"\n", 0, MAX_LINE_OCTETS)
            if end < 0:
                if len(self._buffer) >= MAX_LINE_OCTETS:
                    raise ReplyError("a reply line has no end within 4 KiB", "4.4.2")
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self._take(line):
                reply = _reply(self._code, self._lines)
                self._code, self._lines = b"", []
                return reply

    def _take(self, line: bytes) -> bool:
        """Add a line without its LF; tell whether it ends the reply."""
        if not line.endswith(b"\r"):
            raise ReplyError("a reply line ends in a bare LF")
        match = _LINE.fullmatch(line, 0, len(line) - 1)
        if match is None:
            raise ReplyError(f"not a reply: {printable(line, 80)}")
        code, mark, text = match.groups()
        if self._lines and code != self._code:
            raise ReplyError("the lines of a reply have different codes")
        if len(self._lines) == MAX_LINES:
            raise ReplyError("a reply has more than 100 lines", "4.4.2")
        self._code = code
        self._lines.append(text or b"")
        return mark != b"-"


def _reply(code: bytes, lines: list[bytes]) -> Reply:
    texts = [printable(line) for line in lines]
    match = _ENHANCED.match(texts[0])
    if match is None or texts[0][0] != chr(code[0]):
        return Reply(int(code), tuple(texts))
    enhanced = match[1]
    return Reply(int(code), tuple(_without(text, enhanced) for text in texts), enhanced)


def _without(text: str, enhanced: str) -> str:
    return text[len(enhanced) :].lstrip(" ") if text.startswith(enhanced) else text
