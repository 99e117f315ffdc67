"""The client's half of an SMTP session, sans-IO: which replies are awaited, which are allowed, and what was said.

Knows no sockets, no clock and no mail transactions (`mailing` does those). Invariant: every reply answers the oldest
command that has none; a reply that nobody asked for breaks the session, except 421. RFC 5321, 2920, 3207, 4954.
"""

import base64
from collections import deque
from collections.abc import Sequence
from enum import Enum

from postbud.model.outcome import Reply
from postbud.wire.reply import ReplyError, ReplyReader

TRANSCRIPT_OCTETS = 8192


class Stage(Enum):
    """What a reply answers; each with the first digits that may (the state table of the client)."""

    BANNER = ("banner", "245")
    EHLO = ("EHLO", "245")
    HELO = ("HELO", "245")
    STARTTLS = ("STARTTLS", "245")
    AUTH = ("AUTH", "2345")
    MAIL = ("MAIL", "245")
    RCPT = ("RCPT", "245")
    DATA = ("DATA", "345")
    END = ("end of content", "245")
    RSET = ("RSET", "245")
    QUIT = ("QUIT", "245")

    def __init__(self, title: str, digits: str) -> None:
        self.title = title
        self.digits = frozenset(map(int, digits))


class Client:
    """One session: feed it what comes, send what it is told to note, take the replies."""

    __slots__ = ("_awaited", "_broken", "_closing", "_current", "_opening", "_reader")

    def __init__(self) -> None:
        self._reader = ReplyReader()
        self._awaited: deque[Stage] = deque([Stage.BANNER])
        self._closing = False
        self._broken: ReplyError | None = None
        self._opening: list[str | bytes | Reply] = []
        self._current = self._opening

    # -- state -----------------------------------------------------------------------------------------------------------

    @property
    def awaited(self) -> Stage | None:
        """The stage whose reply comes next; None: nothing is asked."""
        return self._awaited[0] if self._awaited else None

    @property
    def closing(self) -> bool:
        """Whether the peer said 421: it will not take another command."""
        return self._closing

    @property
    def quiet(self) -> bool:
        """Whether nothing came that was not asked for: the condition for a new command, and for TLS to begin (K2)."""
        return self._reader.empty

    # -- talking ---------------------------------------------------------------------------------------------------------

    def send(self, line: bytes, *stages: Stage, shown: str | None = None) -> bytes:
        """Note that octets are sent which ask for the replies of `stages`, in order; give the octets.

        `shown` is what the transcript shows in their place.

        Raises:
            ReplyError: Something of the peer's waits unread though nothing was asked.
        """
        if not self._awaited and not self._reader.empty:
            raise ReplyError("the peer spoke out of turn")
        self._awaited.extend(stages)
        self._current.append(line if shown is None else shown)
        return line

    def note(self, text: str) -> None:
        """Put a remark of ours into the transcript."""
        self._current.append(text)

    def receive(self, octets: bytes) -> list[tuple[Stage, Reply]]:
        """Take octets of the peer; give the replies that they complete, however much nonsense follows: see `broken`."""
        self._reader.feed(octets)
        replies: list[tuple[Stage, Reply]] = []
        try:
            while self._broken is None and (reply := self._reader.next_reply()) is not None:
                self._current.append(reply)
                if self._awaited:
                    replies.append((self._stage_of(reply), reply))
                elif reply.code != 421:
                    raise ReplyError("a reply came that nothing asked for")
                self._closing = self._closing or reply.code == 421
        except ReplyError as error:
            self._broken = error
        return replies

    def _stage_of(self, reply: Reply) -> Stage:
        stage = self._awaited[0]
        if reply.code // 100 not in stage.digits:
            raise ReplyError(f"a {reply.code} cannot answer {stage.title}")
        return self._awaited.popleft()

    @property
    def broken(self) -> ReplyError | None:
        """What the peer did against the protocol, after the replies that were given: malformed, unasked, of a wrong kind."""
        return self._broken

    def begin_transaction(self) -> None:
        """Begin a new part of the transcript; the opening of the session is kept."""
        self._current = []

    # -- transcript --------------------------------------------------------------------------------------------------------

    def transcript(self) -> str:
        """Give what was said, opening first, one line each; the middle is cut beyond 8 KiB."""
        current = [] if self._current is self._opening else self._current
        text = "\n".join(line for entry in (*self._opening, *current) for line in _lines(entry))
        if len(text) <= TRANSCRIPT_OCTETS:
            return text
        half = TRANSCRIPT_OCTETS // 2 - 16
        return f"{text[:half]}\n[... cut ...]\n{text[-half:]}"


def _lines(entry: str | bytes | Reply) -> list[str]:
    if isinstance(entry, str):
        return [f"-- {entry}"]
    if isinstance(entry, bytes):
        return [f"C: {line}" for line in entry.decode("utf-8", "backslashreplace").removesuffix("\r\n").split("\r\n")]
    enhanced = f"{entry.enhanced} " if entry.enhanced else ""
    last = len(entry.lines) - 1
    return [f"S: {entry.code}{' ' if at == last else '-'}{enhanced}{text}" for at, text in enumerate(entry.lines)]


def auth_steps(offered: frozenset[str], username: str, password: str) -> Sequence[bytes] | None:
    """Give the lines of an AUTH exchange, each after the first upon a 334; None: no mechanism of ours is offered.

    PLAIN (RFC 4616) before LOGIN, which remains for servers that know nothing else.
    """
    name, secret = username.encode(), password.encode()
    if "PLAIN" in offered:
        return (b"AUTH PLAIN " + base64.b64encode(b"\0" + name + b"\0" + secret) + b"\r\n",)
    if "LOGIN" in offered:
        return (b"AUTH LOGIN\r\n", base64.b64encode(name) + b"\r\n", base64.b64encode(secret) + b"\r\n")
    return None
