"""Content: header section and body, apart, because fix-ups and signing touch the one and only hash the other.

The empty line between them belongs to neither; whoever writes content to a wire or a file joins with CRLF.
Every line ends in CRLF; nothing here is dot-stuffed.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BodyFacts:
    """What one pass over a body tells.

    `sha256_relaxed` is the SHA-256 of the body in DKIM's relaxed canonical form (RFC 6376 s3.4.4), so that signing later
    needs the header section only. `long_line`: a line has more than 998 octets without CRLF (RFC 5322 s2.1.1).
    """

    octets: int
    sha256_relaxed: bytes
    eight_bit: bool = False
    nul: bool = False
    long_line: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A whole content. `body` is octets, or the path of a file that holds them when it is large."""

    header: bytes
    body: bytes | Path
    facts: BodyFacts

    @property
    def octets(self) -> int:
        """Size as it would be sent, before dot-stuffing: header section, empty line, body."""
        return len(self.header) + 2 + self.facts.octets
