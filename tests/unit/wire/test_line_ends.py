"""Bare CR and LF are told from CRLF, dotted lines are found, and content ends at the same place, however it is looked for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.refusal import Why
from postbud.wire.data import DataReader
from postbud.wire.line_ends import bare_ends, has_dotted_line

PIECES = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0", b"\x0b", b"\x85", b"\xe2\x80\xa8"]), max_size=12)


@given(PIECES.map(b"".join) | st.binary(max_size=40))
@pytest.mark.row("A12")
def test_a_bare_end_is_one_without_its_other_half(octets: bytes) -> None:
    assert bare_ends(octets) == (bool(re.search(rb"\r(?!\n)", octets)), bool(re.search(rb"(?<!\r)\n", octets)))


@given(PIECES.map(b"".join))
def test_a_dotted_line_begins_behind_crlf(octets: bytes) -> None:
    assert has_dotted_line(octets) is (b"\r\n." in octets)


@pytest.mark.row("A9")
@pytest.mark.parametrize("dots", [0, 1, 62, 63, 64, 65, 200])
def test_content_ends_at_its_end_however_many_dots_come_before(dots: int) -> None:
    for before in (b"a." * dots, b".." * dots, b"\r\n.." * dots):
        reader = DataReader(10_000)
        content = reader.feed(before + b"x\r\n.\r\n" + b"NOOP.\r\n")
        assert (reader.ended, reader.rest, reader.flaw) == (True, b"NOOP.\r\n", None)
        assert content.endswith(b"x\r\n")
    reader = DataReader(10_000)
    reader.feed(b"a." * dots)
    assert not reader.ended
    assert reader.flaw is not Why.BAD_LINE_ENDS
