"""Line ends of a whole message that does not come by SMTP: CRLF everywhere, or LF everywhere, never a mixture (RFC 5322 s2.2).

A file on Unix ends its lines in LF. When the first line does so, every line must, and each becomes CRLF: there is one way to
read it. Anything else with a bare CR or LF is refused, because two programs could read two messages in it (inputs A1 to A6).
Invariant: what comes out has CR and LF as CRLF only, ends with it, and does not depend on where the octets were cut.
"""

from enum import Enum


class BareLineEnd(ValueError):  # noqa: N818 (named for what it tells)
    """A CR or LF that is no line end of this message."""


class _Mode(Enum):
    UNKNOWN = "unknown"
    CRLF = "crlf"
    LF = "lf"


class LineEnds:
    """Takes octets in pieces and gives them with CRLF."""

    def __init__(self) -> None:
        self._mode = _Mode.UNKNOWN
        self._cr = b""  # a CR at the end of the last piece: half a line end
        self._ended = True

    def feed(self, chunk: bytes) -> bytes:
        """Give what a piece becomes.

        Raises:
            BareLineEnd: A bare CR, or a bare LF in a message whose lines end in CRLF.
        """
        data = self._cr + chunk
        self._cr = b""
        if data.endswith(b"\r"):
            self._cr, data = b"\r", data[:-1]
        if not data:
            return b""
        if self._mode is _Mode.UNKNOWN and (first := data.find(b"\n")) >= 0:
            self._mode = _Mode.CRLF if data[first - 1 : first] == b"\r" else _Mode.LF
        ends = data.count(b"\n")
        if self._mode is _Mode.LF:
            if b"\r" in data:
                raise BareLineEnd
            data = data.replace(b"\n", b"\r\n")
        elif data.count(b"\r\n") != ends or data.count(b"\r") != ends:
            raise BareLineEnd
        self._ended = data.endswith(b"\n")
        return data

    def end(self) -> bytes:
        """Give what is missing at the end: nothing, or the last line's CRLF.

        Raises:
            BareLineEnd: The last octet is a CR.
        """
        if self._cr:
            raise BareLineEnd
        return b"" if self._ended else b"\r\n"
