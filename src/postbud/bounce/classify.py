"""Tells coarsely what a failure is about, from a reply or from what a DSN says (RFC 5321 s4.2, RFC 3463).

The knowledge is in `rules.toml`, given as text by the caller: patterns (RE2: linear time on hostile text, input G13) in their
order, then enhanced status codes, then the reply code. Does not know who gets suppressed for it.
Invariant: a 4yz is never about the recipient (in doubt, defer).
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum

import re2

from postbud.model.outcome import Reply

MAX_TEXT = 2000
MAX_REPLY = 500  # of a text, what stands behind a reply code is the peer's own word and comes first

_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
# a reply code stands at the beginning, behind punctuation, or before an enhanced status code: other numbers are just numbers
_CODE = re.compile(r"(?:^|(?<=[;:>\"'] ))([45][0-5]\d)(?=[ \-]|$)|(?<!\S)([45][0-5]\d)(?=[ \-]#?[245]\.\d)")


class Class(Enum):
    """What a failure is about."""

    RECIPIENT = "recipient"
    TEMPORARY = "temporary"
    POLICY = "policy"
    INFRASTRUCTURE = "infrastructure"
    UNKNOWN = "unknown"


class RulesError(ValueError):
    """The rules' text is no rules."""


class Classifier:
    """Classifies by one set of rules. Make it with `from_toml`."""

    def __init__(self, patterns: Sequence[tuple[str, Class]], codes: Mapping[str, Class]) -> None:
        """Take patterns with their classes, the most telling first, and codes such as `x.1.1` or `x.7`.

        Raises:
            RulesError: A pattern is none that RE2 takes.
        """
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        self._set = re2.Set.SearchSet(options)
        for pattern, _ in patterns:
            try:
                self._set.Add(pattern)
            except re2.error as error:
                raise RulesError(f"pattern {pattern!r} is malformed") from error
        self._set.Compile()
        self._classes = [found for _, found in patterns]
        self._codes = dict(codes)

    @classmethod
    def from_toml(cls, text: str) -> "Classifier":
        """Read rules from the text of `rules.toml`.

        Raises:
            RulesError: The text is no TOML of that shape.
        """
        try:
            document = tomllib.loads(text)
            patterns = [(pattern, Class(rule["class"])) for rule in document["rule"] for pattern in rule["patterns"]]
            codes = {code: Class(name) for code, name in document["codes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RulesError(f"rules: {error}") from error
        return cls(patterns, codes)

    def classify(self, reply: Reply | None, enhanced: str | None = None, text: str = "") -> Class:
        """Tell what a failure is about.

        Give the reply of an SMTP dialogue, or None with what a DSN says: its Status and its Diagnostic-Code (or, of a bounce
        for people, its text). Codes are also looked for in the text.
        """
        said = " ".join((reply.text if reply else text).split())[:MAX_TEXT]
        code, start = (reply.code, 0) if reply else _find_code(said)
        status = reply.enhanced if reply and reply.enhanced else enhanced or ""
        found = (
            self._by_text(said[start : start + MAX_REPLY])
            or self._by_status((status, _status_in(said[start:])))
            or self._by_text(said)
            or _by_code(code)
        )
        temporary = code // 100 == 4 or (code == 0 and status.startswith("4."))
        if temporary and found in {Class.RECIPIENT, Class.UNKNOWN}:
            return Class.TEMPORARY
        return found

    def _by_text(self, said: str) -> Class | None:
        matches = self._set.Match(said)
        return self._classes[min(matches)] if matches else None

    def _by_status(self, statuses: Sequence[str]) -> Class | None:
        for status in statuses:
            subject, _, detail = status[2:].partition(".")
            found = self._codes.get(f"x.{subject}.{detail}") or self._codes.get(f"x.{subject}")
            if found is not None:
                return found
        return None


def _status_in(said: str) -> str:
    match = _STATUS.search(said)
    return match[0] if match else ""


def _find_code(said: str) -> tuple[int, int]:
    """Give the first reply code in a text and where it stands; (0, 0) when there is none."""
    match = _CODE.search(said)
    return (int(match[1] or match[2]), match.start()) if match else (0, 0)


def _by_code(code: int) -> Class:
    """Judge by a bare reply code: what it says by the book, where the book says anything of the subject."""
    if code // 100 == 4:
        return Class.TEMPORARY
    if code == 551:
        return Class.RECIPIENT
    if code in {500, 501, 502, 503, 504, 521, 555}:
        return Class.INFRASTRUCTURE
    return Class.POLICY if code in {530, 535, 552} else Class.UNKNOWN
