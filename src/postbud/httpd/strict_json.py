"""JSON from strangers, read one way only (RFC 8259, RFC 7493): what two readers could read differently is refused.

Refused: octets that are no UTF-8, lone surrogates, the same name twice in an object, numbers beyond what a double holds,
NaN and Infinity, nesting that is too deep, anything behind the value.
"""

import json
import math
from typing import Any, NoReturn

_MAX_DEPTH = 32
_ESCAPED_SURROGATE = (b"\\ud", b"\\uD")


class BadJson(ValueError):  # noqa: N818 (named for what it tells)
    """The octets are no JSON that we read; the text says why."""


def parse(octets: bytes) -> Any:
    """Give the value.

    Raises:
        BadJson: There is none, or more than one way to read it.
    """
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 at octet {error.start}") from error
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise BadJson("the body nests too deeply") from None
    except json.JSONDecodeError as error:
        raise BadJson(f"the body is no JSON: {error.msg} at character {error.pos}") from error
    except BadJson:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise BadJson("the body holds a number that is too large") from error
    if _is_deep(value, _MAX_DEPTH):
        raise BadJson("the body nests too deeply")
    if any(mark in octets for mark in _ESCAPED_SURROGATE):
        _refuse_surrogates(value)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadJson(f"the name {name[:40]!a} stands twice in an object")
            seen.add(name)
    return found


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadJson("the body holds a number that is too large")
    return number


def _constant(text: str) -> NoReturn:
    raise BadJson(f"{text} is no JSON")


def _is_deep(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        return left == 0 or any(_is_deep(member, left - 1) for member in value.values())
    if isinstance(value, list):
        return left == 0 or any(_is_deep(member, left - 1) for member in value)
    return False


def _refuse_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("the body holds half of a surrogate pair") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_constant=_constant)
