"""Drives a server session without I/O: says yes to every event unless told otherwise, and keeps what happened."""

import re
from collections.abc import Callable

from postbud.wire.events import ContentChunk, EndOfData, Event, SecretExposed, ServerSettings
from postbud.wire.server import ServerConnection

LIMIT = 1_000
NO = b"550 5.7.1 No\r\n"
_CODE = re.compile(r"\d{3}(?: \d\.\d\.\d+|(?= ))?(?: HELP)?")
Refuses = Callable[[Event], bool]


def settings(**changes: object) -> ServerSettings:
    """What a submission listener announces, on cleartext with STARTTLS unless changed."""
    base: dict[str, object] = {
        "hostname": "relay.example",
        "size_limit_octets": LIMIT,
        "recipients_limit": 100,
        "starttls": True,
        "auth_without_tls": True,
    }
    return ServerSettings(**(base | changes))  # type: ignore[arg-type]  # names are the dataclass's own


class Talk:
    """One session. `events` are all but content, whose octets are joined in `contents` (spoiled ones as nothing)."""

    def __init__(
        self, *, refuses: Refuses = lambda _event: False, normalise: bool = False, no: bytes = NO, **changes: object
    ) -> None:
        self.wire = ServerConnection(settings(**changes))
        self.refuses = refuses
        self.normalise = normalise
        self.no = no
        self.events: list[Event] = []
        self.contents: list[bytes] = []
        self.said = b""
        self._content = b""

    def hello(self) -> "Talk":
        """Say EHLO and forget the answer."""
        self.say(b"EHLO client.example\r\n")
        return self

    def say(self, octets: bytes, *, piece: int = 0) -> list[str]:
        """Feed octets, whole or in pieces; give the replies' codes (with the enhanced one) of what was answered."""
        self.said = b""
        for start in range(0, len(octets), piece or len(octets) or 1):
            self.wire.feed(octets[start : start + (piece or len(octets))])
            self.pull()
        self.pull()
        return [_code(line) for line in self.said.decode().split("\r\n")[:-1] if line[3:4] != "-"]

    def pull(self) -> None:
        """Answer all events that are there."""
        while (event := self.wire.next_event()) is not None:
            if isinstance(event, ContentChunk):
                self._content += event.octets
                continue
            self.events.append(event)
            if isinstance(event, SecretExposed):
                continue
            if isinstance(event, EndOfData):
                self.contents.append(self._content if event.flaw is None else b"")
                self._content = b""
            self._answer(event)
        self.said += self.wire.take()

    def _answer(self, event: Event) -> None:
        assert self.wire.awaits_answer
        if isinstance(event, EndOfData) and event.flaw is not None:
            self.wire.refuse(f"{event.flaw.reply_code} {event.flaw.enhanced} No\r\n".encode(), close=True)
        elif self.refuses(event):
            self.wire.refuse(self.no)
        else:
            self.wire.accept("msg_1", normalise=self.normalise)


def _code(line: str) -> str:
    found = _CODE.match(line)
    return found[0] if found else line


def transaction(talk: Talk) -> Talk:
    """Come to the point where content is read."""
    assert talk.say(b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n") == ["250 2.1.0", "250 2.1.5", "354"]
    return talk
