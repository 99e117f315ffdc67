"""Header text: fields that hold words of people, encoded where ASCII cannot say them (RFC 2047) and folded (RFC 5322 s2.2.3).

Owns unstructured values, display names and lists of addresses. Text that would be read as something else than it is (an
encoded word in the caller's own words, white space at an end or in a run that a fold could eat) is encoded too, so that what
is read equals what was said. Undoing it is `words.decode_words`.
Invariant: no CR or LF of a caller gets into a field: every control character is encoded.
"""

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from postbud.model.mailbox import Mailbox

FOLD_OCTETS = 76
_LONGEST_WORD = 700  # a word without white space that is longer is encoded; with its field's name it fits a line
_PREFIX = "=?utf-8?"
_WORD_OCTETS = 75  # RFC 2047 s2
_PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047 s5 (3)


class Named(Protocol):
    """A mailbox with a name."""

    @property
    def mailbox(self) -> Mailbox:
        """Where."""

    @property
    def name(self) -> str:
        """Who; may be empty."""


def header_text(name: str, value: str) -> bytes:
    """Give an unstructured field, CRLF included. `name` is a field name, checked by the caller."""
    if not value:
        return f"{name}: \r\n".encode("ascii")
    line = f"{name}: {value}"
    if _is_plain(value):
        if len(line) <= FOLD_OCTETS:
            return f"{line}\r\n".encode("ascii")
        folded = _fold(name, value.split(" "))
    else:
        folded = _fold(name, list(encoded_words(value, len(name) + 2)))
    return f"{folded}\r\n".encode("ascii")


def is_plain(value: str) -> bool:
    """Tell whether a value can stand in a field as it is: ASCII, printable, in words that a line can hold."""
    return not value or _is_plain(value)


def fold_address_list(name: str, people: Sequence[Named]) -> bytes:
    """Give an address field, one address a line where they do not fit one; CRLF included. UTF-8 if a mailbox needs it."""
    written = [_address(one) for one in people]
    joined = ", ".join(written)
    if len(name) + 2 + len(joined) > FOLD_OCTETS or "\r\n" in joined:
        joined = ",\r\n ".join(written)
    return f"{name}: {joined}\r\n".encode()


def encoded_words(text: str, first_indent: int = 0) -> Iterator[str]:
    """Cut text into encoded words, none longer than 75 characters and none through a character.

    The first one leaves room for `first_indent` characters before it on its line, as far as that is possible.
    """
    octets = text.encode("utf-8")
    quoted = sum(1 if octet in _Q_SAFE or octet == 0x20 else 3 for octet in octets)
    letter = "q" if quoted <= (len(octets) + 2) // 3 * 4 else "b"
    room = _WORD_OCTETS - len(_PREFIX) - 4  # letter, question mark, and the closing ?=
    budget = max(room - first_indent, 16)
    piece: list[str] = []
    used = 0
    for character in text:
        cost = _cost(character) if letter == "q" else len(character.encode("utf-8"))
        limit = budget if letter == "q" else budget // 4 * 3
        if used + cost > limit:
            yield _word(letter, "".join(piece))
            piece, used, budget = [], 0, room
        piece.append(character)
        used += cost
    yield _word(letter, "".join(piece))


def _is_plain(value: str) -> bool:
    if not value.isascii() or "=?" in value or _PLAIN.fullmatch(value) is None:
        return False
    return len(value) <= _LONGEST_WORD or max(map(len, value.split(" "))) <= _LONGEST_WORD


def _fold(name: str, words: Sequence[str]) -> str:
    lines, line = [], f"{name}: {words[0]}"
    for word in words[1:]:
        if len(line) + 1 + len(word) > FOLD_OCTETS:
            lines.append(line)
            line = f" {word}"
        else:
            line += f" {word}"
    return "\r\n".join([*lines, line])


def _address(person: Named) -> str:
    mailbox = str(person.mailbox)
    if not person.name:
        return mailbox
    written = _phrase(person.name)
    separator = " " if len(written) + len(mailbox) < FOLD_OCTETS - 12 else "\r\n "
    return f"{written}{separator}<{mailbox}>"


def _phrase(name: str) -> str:
    if not _is_plain(name):
        return "\r\n ".join(encoded_words(name, 10))
    if _ATOMS.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cost(character: str) -> int:
    return sum(1 if octet in _Q_SAFE or octet == 0x20 else 3 for octet in character.encode("utf-8"))


def _word(letter: str, piece: str) -> str:
    octets = piece.encode("utf-8")
    if letter == "b":
        return f"{_PREFIX}b?{binascii.b2a_base64(octets, newline=False).decode('ascii')}?="
    said = "".join(chr(octet) if octet in _Q_SAFE else "_" if octet == 0x20 else f"={octet:02X}" for octet in octets)
    return f"{_PREFIX}q?{said}?="
