"""Content onto the wire: dots stuffed, ended by the final dot, and never a bare CR or LF. RFC 5321 s4.5.2.

All by C-level replace and count. A bare CR or LF in content would be somebody's smuggled message at a lenient peer (A12).
"""

from postbud.wire.line_ends import bare_ends, has_dotted_line

FINAL_DOT = b".\r\n"


class ContentError(ValueError):
    """The content cannot be sent as it is: a line does not end in CRLF alone."""


def stuff(*pieces: bytes, final: bool = False) -> bytes:
    """Give a whole content, dot-stuffed and with a CRLF at its end; with the final dot if `final`.

    Raises:
        ContentError: It holds a bare CR or LF.
    """
    content = b"".join(pieces)
    if any(bare_ends(content)):
        raise ContentError("content holds a bare CR or LF")
    if has_dotted_line(content):
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    ending = (b"" if content.endswith(b"\r\n") else b"\r\n") + (FINAL_DOT if final else b"")
    return content + ending if ending else content


class Stuffer:
    """Does what `stuff` does, for content that comes in chunks of any size."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        """Give the octets to send for a chunk.

        Raises:
            ContentError: A bare CR or LF; nothing of this chunk may be sent.
        """
        held = len(self._tail)
        joined = self._tail + chunk
        ends = joined.count(b"\r\n")
        open_cr = joined.endswith(b"\r")
        orphan_lf = joined.startswith(b"\n")  # its CR stands before the two octets that we keep, and was counted there
        if joined.count(b"\n") - orphan_lf != ends or joined.count(b"\r") - open_cr != ends:
            raise ContentError("content holds a bare CR or LF")
        self._tail = joined[-2:]
        return joined.replace(b"\r\n.", b"\r\n..")[held:]

    def finish(self) -> bytes:
        """Give what is missing before the final dot.

        Raises:
            ContentError: The content ends in a bare CR.
        """
        if self._tail.endswith(b"\r"):
            raise ContentError("content holds a bare CR or LF")
        return b"" if self._tail == b"\r\n" else b"\r\n"
