"""What a peer offers in its reply to EHLO. Unknown and absurd words are ignored.

RFC 1870 SIZE, 2920 PIPELINING, 3207 STARTTLS, 3461 DSN, 4954 AUTH, 6152 8BITMIME, 6531 SMTPUTF8, 8689 REQUIRETLS, 9422 LIMITS.
"""

import re
from dataclasses import dataclass, field

from postbud.model.outcome import Reply

_SIZE = re.compile(r"[0-9]{1,20}")
_LIMIT = re.compile(r"(RCPTMAX|MAILMAX|RCPTDOMAINMAX)=([1-9][0-9]{0,5})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extensions:
    """The words of one EHLO. After HELO: none."""

    words: frozenset[str] = frozenset()
    size_octets: int | None = None  # None: no limit is said
    auth: frozenset[str] = frozenset()
    limits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, reply: Reply) -> "Extensions":
        """Read the lines after the first, which is the peer's name."""
        words: set[str] = set()
        size: int | None = None
        auth: set[str] = set()
        limits: dict[str, int] = {}
        for line in reply.lines[1:]:
            word, *arguments = line.upper().replace("AUTH=", "AUTH ", 1).split() or [""]
            words.add(word)
            if word == "SIZE" and arguments and _SIZE.fullmatch(arguments[0]):
                size = int(arguments[0]) or None
            elif word == "AUTH":
                auth.update(arguments)
            elif word == "LIMITS":
                limits.update((match[1], int(match[2])) for match in map(_LIMIT.fullmatch, arguments) if match)
        return cls(frozenset(words), size, frozenset(auth), limits)

    def without(self, *words: str) -> "Extensions":
        """Give the same offer less some words: the peer offered them and then refused their use."""
        return Extensions(self.words.difference(words), None if "SIZE" in words else self.size_octets, self.auth, self.limits)

    @property
    def pipelining(self) -> bool:
        """Whether commands may be sent before the replies to earlier ones came."""
        return "PIPELINING" in self.words
