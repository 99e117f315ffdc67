"""Addresses in header fields: From, Sender, Reply-To, To and Cc as lists of display name and mailbox (RFC 5322 s3.4).

Owns: the split of an address list into mailboxes, comments and groups. Mailboxes themselves go through `Mailbox.parse`,
the one strict parser; encoded words are decoded in display names only, never in an address (inputs E4, E5, E12).
Where implementations read a text differently (`<a@x>@y`, `a@x <b@y>`, `a@x(<b@y>)`), it is refused, never guessed.
Invariant: no recursion, linear time, budgets on everything.
"""

import re
from dataclasses import dataclass

from postbud.mime.words import decode_words
from postbud.model.mailbox import Mailbox, MailboxError

MAX_COMMENT_DEPTH = 10
MAX_COMMENTS = 100
MAX_ADDRESSES = 1000
MAX_TOKENS = 20_000  # words, marks and gaps of a whole list: 20 for each address

# ordinary mail: one `addr`, `words <addr>` or `"words" <addr>`, no comments, no escapes
_SIMPLE = re.compile(
    rb'(?:"([^"\\()<>\r\n]*+)"[ \t]*+|([^"\\()<>,;:@\r\n]*+))<([!#-\'*+\-./0-9=?@A-Z^-~]++)>'
    rb"|([!#-'*+\-./0-9=?@A-Z^-~]++)"
)
_TOKEN = re.compile(
    r"(?P<space>[ \t]++)"
    r'|(?P<quoted>"(?:[^"\\]|\\.)*+")'
    r'|(?P<angle><(?:[^<>"\\]|"(?:[^"\\]|\\.)*+")*+>)'
    r"|(?P<atom>[^ \t\"<>(),:;\\\x00-\x1f\x7f]++)"
    r"|(?P<special>[,:;(])"
)
_COMMENT_MARK = re.compile(r"\\.|[()]")
_UNQUOTE = re.compile(r"\\(.)")


class AddressError(ValueError):
    """The field body is no address list that everybody would read the same way."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class NamedMailbox:
    """A mailbox with its display name (decoded; a comment counts as one, as mail programs show it)."""

    display_name: str
    mailbox: Mailbox


@dataclass(frozen=True, slots=True)
class AddressList:
    """What an address list holds: the mailboxes (those in groups included) and the names of the groups."""

    mailboxes: list[NamedMailbox]
    groups: list[str]


def parse_mailbox_list(value: bytes, limit: int = MAX_ADDRESSES) -> list[NamedMailbox]:
    """Parse a field body that may hold mailboxes only, folded or unfolded; at least one.

    Raises:
        AddressError: It is malformed or ambiguous, holds a group or no mailbox, or more than `limit` of them.
    """
    simple = _SIMPLE.fullmatch(value.strip(b" \t\r\n"))
    if simple is not None:
        return [_from_simple(simple)]
    found = parse_address_list(value, limit)
    if found.groups:
        raise AddressError("group where only mailboxes may stand")
    if not found.mailboxes:
        raise AddressError("no mailbox")
    return found.mailboxes


def parse_address_list(value: bytes, limit: int = MAX_ADDRESSES) -> AddressList:
    """Parse a field body of mailboxes and groups (RFC 5322 s3.4), folded or unfolded.

    Raises:
        AddressError: It is malformed or ambiguous, or holds more than `limit` mailboxes.
    """
    text = value.replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    return _Parser(text, limit).run()


def _from_simple(match: re.Match[bytes]) -> NamedMailbox:
    quoted, phrase, angle, bare = match.groups()
    name = (quoted or phrase or b"").strip(b" \t")
    text = name.decode("utf-8", "replace")
    return NamedMailbox(decode_words(text) if b"=?" in name else text, _mailbox((angle or bare).decode("ascii")))


def _mailbox(text: str) -> Mailbox:
    try:
        return Mailbox.parse(text, smtputf8=True)
    except MailboxError as error:
        raise AddressError(error.why) from error


class _Parser:
    """One pass over the tokens. `words` collects the phrase or bare address that the next comma, `<` or `:` explains."""

    def __init__(self, text: str, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._mailboxes: list[NamedMailbox] = []
        self._groups: list[str] = []
        self._in_group = False
        self._comments = 0
        self._reset()

    def _reset(self) -> None:
        self._words: list[str] = []
        self._spaced = False  # white space or a comment came after the last word
        self._gaps = False  # such a gap stands between two words
        self._angle: str | None = None
        self._comment = ""
        self._after_group = False

    def run(self) -> AddressList:
        position, end, tokens = 0, len(self._text), 0
        while position < end:
            match = _TOKEN.match(self._text, position)
            tokens += 1
            if match is None or tokens > MAX_TOKENS:
                raise AddressError("address list is malformed or too long")
            position = match.end()
            kind, piece = match.lastgroup, match.group()
            if kind == "space":
                self._spaced = True
            elif piece == "(":
                position = self._skip_comment(position)
            elif kind == "special":
                self._special(piece)
            else:
                self._word(kind, piece)
        if self._in_group:
            raise AddressError("group without its end")
        self._end_entry()
        return AddressList(self._mailboxes, self._groups)

    def _word(self, kind: str | None, piece: str) -> None:
        if self._angle is not None or self._after_group:
            raise AddressError("text after an address")
        if kind == "angle":
            self._angle = piece[1:-1].strip(" \t")
            return
        if self._spaced and self._words:
            self._gaps = True
            self._words.append(" ")
        self._words.append(piece)
        self._spaced = False

    def _special(self, piece: str) -> None:
        if piece == ",":
            self._end_entry()
        elif piece == ":":
            if self._in_group or self._angle is not None or not self._words:
                raise AddressError("misplaced colon")
            self._groups.append(self._phrase())
            self._reset()
            self._in_group = True
        else:
            if not self._in_group:
                raise AddressError("misplaced semicolon")
            self._end_entry()
            self._in_group = False
            self._after_group = True

    def _end_entry(self) -> None:
        address = self._angle
        if address is None and self._words:
            if self._gaps:
                raise AddressError("white space or a comment inside an address")
            address = "".join(self._words)
        if address is not None:
            self._add(address)
        self._reset()

    def _add(self, address: str) -> None:
        if len(self._mailboxes) >= self._limit:
            raise AddressError("too many addresses")
        name = self._comment
        if self._angle is not None and self._words:
            name = self._phrase()
            if any("@" in word and word[0] != '"' for word in self._words) and name.lower() != address.lower():
                raise AddressError("an address before the address")
        self._mailboxes.append(NamedMailbox(_clean(name), _mailbox(address)))

    def _phrase(self) -> str:
        return "".join([_UNQUOTE.sub(r"\1", word[1:-1]) if word[0] == '"' else word for word in self._words])

    def _skip_comment(self, position: int) -> int:
        self._comments += 1
        if self._comments > MAX_COMMENTS:
            raise AddressError("too many comments")
        start, depth = position, 1
        for mark in _COMMENT_MARK.finditer(self._text, position):
            piece = mark.group()
            depth += (piece == "(") - (piece == ")")
            if depth > MAX_COMMENT_DEPTH:
                raise AddressError("comments too deep")
            if depth == 0:
                comment = self._text[start : mark.start()]
                if "<" in comment or ">" in comment:
                    raise AddressError("angle bracket in a comment")
                self._comment = _UNQUOTE.sub(r"\1", comment)
                self._spaced = True
                return mark.end()
        raise AddressError("comment without its end")


def _clean(name: str) -> str:
    """Decode encoded words; octets that were no UTF-8 become U+FFFD."""
    return decode_words(name.encode("utf-8", "surrogateescape"))
