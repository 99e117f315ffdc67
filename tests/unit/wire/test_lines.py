"""Only CRLF ends a command line; nothing behind a bare LF is run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.wire.lines import MAX_UNENDED_OCTETS, LineReader, Trouble


def read(octets: bytes, step: int) -> list[bytes | Trouble]:
    reader, found = LineReader(), []
    for start in range(0, len(octets), step):
        reader.feed(octets[start : start + step])
        while (line := reader.next()) is not None:
            found.append(line)
            if line is Trouble.ENDLESS:
                return found
    return found


@pytest.mark.row("D2", "E3")
def test_what_stands_behind_a_bare_lf_is_dropped_up_to_the_next_crlf() -> None:
    assert read(b'RCPT TO:<"a\nDATA\r\nNOOP\r\n', 99) == [Trouble.BARE_LF, b"NOOP"]
    assert read(b"NOOP\nNOOP\n", 99) == [Trouble.BARE_LF, Trouble.BARE_LF]


@pytest.mark.row("D1")
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_that_does_not_end_is_given_up(end: bytes) -> None:
    assert read(b"x" * MAX_UNENDED_OCTETS + end, 1 << 20) == [Trouble.ENDLESS]
    assert read(b"x" * (MAX_UNENDED_OCTETS - 2) + b"\r\n", 1 << 20) == [b"x" * (MAX_UNENDED_OCTETS - 2)]


def test_what_is_unread_can_be_looked_at_and_taken() -> None:
    reader = LineReader()
    reader.feed(b"NOOP\r\nehlo x")
    assert reader.next() == b"NOOP"
    assert (len(reader), reader.starts_with(b"EHLO "), reader.starts_with(b"HELO ")) == (6, True, False)
    assert (reader.take(), len(reader), reader.next()) == (b"ehlo x", 0, None)


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"x", b"NOOP"])).map(b"".join), st.integers(1, 9))
def test_segments_make_no_difference(octets: bytes, step: int) -> None:
    assert read(octets, step) == read(octets, len(octets) or 1)
