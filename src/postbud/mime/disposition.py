"""Content-Disposition with a file name (RFC 2183), in the extended form where ASCII or one line cannot say it (RFC 2231).

A name is text and nothing else: no path in it is followed here, nor removed.
"""

import re

_PLAIN = re.compile(r"[ !#-\[\]-~]{1,60}")
_ATTRIBUTE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")  # RFC 2231 s7
_PIECE_OCTETS = 60


def disposition_field(kind: str, filename: str) -> str:
    """Give the field, folded, CRLF included; without a parameter when there is no name."""
    if not filename:
        return f"Content-Disposition: {kind}\r\n"
    if _PLAIN.fullmatch(filename):
        return f'Content-Disposition: {kind};\r\n filename="{filename}"\r\n'
    pieces = _pieces(filename)
    if len(pieces) == 1:
        return f"Content-Disposition: {kind};\r\n filename*=utf-8''{pieces[0]}\r\n"
    first = f" filename*0*=utf-8''{pieces[0]}"
    rest = [f" filename*{number}*={piece}" for number, piece in enumerate(pieces[1:], 1)]
    return ";\r\n".join([f"Content-Disposition: {kind}", first, *rest]) + "\r\n"


def _pieces(filename: str) -> list[str]:
    """Percent-encode a name and cut it into pieces, none through a character."""
    pieces, piece = [], ""
    for character in filename:
        said = character if character in _ATTRIBUTE else "".join(f"%{octet:02X}" for octet in character.encode("utf-8"))
        if len(piece) + len(said) > _PIECE_OCTETS:
            pieces.append(piece)
            piece = ""
        piece += said
    return [*pieces, piece]
