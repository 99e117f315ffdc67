"""JSON of strangers has one reading or none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.httpd.strict_json import BadJson, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_a_library_writes_is_read_as_it_was_meant(value: object, ascii_only: bool) -> None:
    try:
        octets = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")
    except UnicodeEncodeError:
        return
    try:
        assert parse(octets) == value
    except BadJson as error:
        assert "surrogate" in str(error)
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode("utf-8")


@given(st.binary(max_size=60))
def test_any_octets_are_a_value_or_refused(octets: bytes) -> None:
    try:
        parse(octets)
    except BadJson as error:
        assert str(error)


@pytest.mark.row("I3")
@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b'{"a":1,"a":2}', "'a' stands twice"),
        (b'[{"b":{"a":1,"a":1}}]', "stands twice"),
        (b'"\\uD800x"', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b"1e400", "too large"),
        (b"-1e999", "too large"),
        (b"9" * 5000, "too large"),
        (b"[" * 33 + b"]" * 33, "too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too deeply"),
        (b"[" * 200_000, "too deeply"),
        (b"\xc3(", "UTF-8 at octet 0"),
        (b"Infinity", "Infinity"),
        (b"-Infinity", "Infinity"),
        (b"", "no JSON"),
        (b"{}x", "no JSON"),
        (b"{'a':1}", "no JSON"),
        (b'"a\nb"', "no JSON"),
        (b"[1,]", "no JSON"),
        (b"// c\n1", "no JSON"),
    ],
)
def test_what_has_two_readings_is_refused_with_the_reason(octets: bytes, why: str) -> None:
    with pytest.raises(BadJson, match=why):
        parse(octets)


def test_32_levels_are_read() -> None:
    assert parse(b"[" * 32 + b"]" * 32)
    assert parse(b'"\\ud83d\\ude00"') == "😀"
