"""Which limits a site has: shipped values for the large providers, the operator's own above them (`shaping.toml`).

A site is an MX set rolled up (`(alt1|alt2).aspmx.l.google.com`) or `host:port` of a static route; a pattern is a host name or
`*.suffix`. Rules apply in their order, later ones over earlier ones, the operator's file after the shipped one.
Also the words by which providers say "slow down" or "not this sender". Knows no lane and no connection.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import re2

from postbud.model.outcome import Deferred, Outcome

_MAX_TEXT = 500
_MAX_VALUE = 1e6
_ADDRESS = re.compile(r"<[^<>]*>|[^\s@<>]+@[^\s@<>]+")
_SLOW_CODES = frozenset({"4.3.2", "4.4.5", "4.7.28"})  # RFC 3463; x.7.28 is "mail flood detected"


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """What one site is sent at most, through one egress source, by all workers of a node."""

    connections: int = 20
    messages_per_connection: int = 100
    recipients_per_transaction: int = 100  # RFC 5321 s4.5.3.1.8: every server takes that many
    messages_per_second: float = 0.0  # 0: no limit of ours


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value of a site's limits comes from."""

    key: str
    value: float
    rule: str


class Action(Enum):
    """What a site's words ask for."""

    NONE = "none"  # about this message only (greylisting): the ordinary retry is right
    SLOW = "slow"  # too much from this source
    ACCOUNT = "account"  # this sender, not the others


class ShapingError(ValueError):
    """The text is no shaping file."""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    match: tuple[str, ...]
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class _Words:
    action: Action
    match: tuple[str, ...]
    patterns: Any  # a compiled re2.Set


_KEYS = {
    "connections": int,
    "messages_per_connection": int,
    "recipients_per_transaction": int,
    "messages_per_second": float,
}


class Shaping:
    """The rules of one or several files. Make it with `from_toml`."""

    def __init__(self, rules: Iterable[_Rule], words: Iterable[_Words]) -> None:
        self._rules = tuple(rules)
        self._words = tuple(words)
        self._found: dict[tuple[str, SiteLimits], SiteLimits] = {}

    @classmethod
    def from_toml(cls, *files: tuple[str, str]) -> "Shaping":
        """Read (name, text) of files; later ones go over earlier ones, in limits and in words.

        Raises:
            ShapingError: A text is no such TOML; the message names file and place.
        """
        rules: list[_Rule] = []
        words: list[_Words] = []
        for name, text in files:
            try:
                document = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                raise ShapingError(f"{name}: {error}") from error
            unknown = document.keys() - {"site", "signal"}
            if unknown:
                raise ShapingError(f"{name}: unknown key {min(unknown)}")
            rules.extend(_rule(name, table) for table in _tables(name, document, "site"))
            words = [_signal(name, table) for table in _tables(name, document, "signal")] + words
        return cls(rules, words)

    def limits(self, site: str, default: SiteLimits) -> SiteLimits:
        """Give a site's limits; what no rule names is as in `default`."""
        known = self._found.get((site, default))
        if known is None:
            values = {origin.key: origin.value for origin in self._matching(site)}
            known = SiteLimits(**{key: _KEYS[key](values.get(key, getattr(default, key))) for key in _KEYS})
            if len(self._found) > 10_000:
                self._found.clear()
            self._found[site, default] = known
        return known

    def explain(self, site: str, default: SiteLimits) -> list[Origin]:
        """Give each value with the rule that decided it."""
        deciding = {key: Origin(key, float(getattr(default, key)), "default") for key in _KEYS}
        deciding |= {origin.key: origin for origin in self._matching(site)}
        return list(deciding.values())

    def read(self, site: str, outcome: Outcome) -> Action:
        """Tell what an outcome asks of the lane."""
        if not isinstance(outcome, Deferred) or outcome.reply is None:
            return Action.NONE
        reply = outcome.reply
        text = _ADDRESS.sub("", reply.text)[:_MAX_TEXT]  # else who names a mailbox "throttle" could slow a site for all
        for words in self._words:
            if (not words.match or _matches(site, words.match)) and words.patterns.Match(text):
                return words.action
        if reply.code == 421 or (reply.enhanced or outcome.enhanced) in _SLOW_CODES:
            return Action.SLOW
        return Action.NONE

    def _matching(self, site: str) -> list[Origin]:
        return [
            Origin(key, value, rule.name) for rule in self._rules if _matches(site, rule.match) for key, value in rule.values
        ]


def _matches(site: str, patterns: tuple[str, ...]) -> bool:
    """Compare a site's common suffix: `(a|b).mx.example` and `a.mx.example:25` both end in `.mx.example`."""
    rolled = ")" in site
    name = site.rpartition(")")[2].lstrip(".") if rolled else site.rpartition(":")[0] or site
    return any(
        pattern in ("*", name) or (pattern[:2] == "*." and (name.endswith(pattern[1:]) or (rolled and name == pattern[2:])))
        for pattern in patterns
    )


def _tables(name: str, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ShapingError(f"{name}: {key} is written [[{key}]]")
    return tables


def _texts(name: str, table: dict[str, Any], key: str) -> tuple[str, ...]:
    texts = table.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ShapingError(f"{name}: {key} is a list of texts")
    return tuple(texts)


def _rule(name: str, table: dict[str, Any]) -> _Rule:
    match = _texts(name, table, "match")
    label = f"{name}: {table.get('name') or ', '.join(match)}"
    if not match:
        raise ShapingError(f"{label}: match is missing")
    unknown = table.keys() - _KEYS.keys() - {"name", "match"}
    if unknown:
        raise ShapingError(f"{label}: unknown key {min(unknown)}")
    values = []
    for key, kind in _KEYS.items():
        value = table.get(key)
        if value is None:
            continue
        right = isinstance(value, int | float) and not isinstance(value, bool) and (kind is float or isinstance(value, int))
        if not right or not 0 < value <= _MAX_VALUE:
            raise ShapingError(f"{label}: {key} is a number above 0, at most {_MAX_VALUE:.0f}")
        values.append((key, float(value)))
    return _Rule(label, tuple(pattern.lower() for pattern in match), tuple(values))


def _signal(name: str, table: dict[str, Any]) -> _Words:
    unknown = table.keys() - {"action", "match", "patterns"}
    if unknown:
        raise ShapingError(f"{name}: signal: unknown key {min(unknown)}")
    try:
        action = Action(table.get("action"))
    except ValueError:
        raise ShapingError(f"{name}: signal: action is none, slow or account") from None
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    patterns = re2.Set.SearchSet(options)
    for pattern in _texts(name, table, "patterns"):
        try:
            patterns.Add(pattern)
        except re2.error as error:
            raise ShapingError(f"{name}: pattern {pattern!r} is malformed") from error
    patterns.Compile()
    return _Words(action, tuple(text.lower() for text in _texts(name, table, "match")), patterns)
