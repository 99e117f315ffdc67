"""The reply reader: the grammar, its limits, and that segments make no difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.outcome import Reply
from postbud.wire.reply import MAX_LINE_OCTETS, MAX_LINES, ReplyError, ReplyReader


def read(octets: bytes, sizes: list[int] | None = None) -> tuple[list[Reply], str | None]:
    """Give the replies and the error, fed in pieces of the sizes given, by turns."""
    reader, replies, at, turn = ReplyReader(), [], 0, 0
    while at < len(octets):
        size = sizes[turn % len(sizes)] if sizes else len(octets)
        reader.feed(octets[at : at + size])
        at, turn = at + size, turn + 1
        try:
            while (reply := reader.next_reply()) is not None:
                replies.append(reply)
        except ReplyError as error:
            return replies, error.why
    return replies, None


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 2.1.5 Ok\r\n", Reply(250, ("Ok",), "2.1.5")),
        (b"250 2.1.5\r\n", Reply(250, ("",), "2.1.5")),
        (b"250\r\n", Reply(250, ("",))),
        (b"250 \r\n", Reply(250, ("",))),
        (b"550-5.7.1 one\r\n550 5.7.1 two\r\n", Reply(550, ("one", "two"), "5.7.1")),
        (b"550-5.7.1 one\r\n550 two\r\n", Reply(550, ("one", "two"), "5.7.1")),
        (b"550 4.7.1 classes differ\r\n", Reply(550, ("4.7.1 classes differ",))),
        (b"499 odd but temporary\r\n", Reply(499, ("odd but temporary",))),
        (b"550 \xff\r\n", Reply(550, ("\\xff",))),
    ],
)
def test_replies_are_read_with_codes_texts_and_enhanced_codes(octets: bytes, reply: Reply) -> None:
    assert read(octets) == ([reply], None)


@pytest.mark.row("K1")
@pytest.mark.parametrize(
    "octets",
    [
        b"250 ok\n",
        b"999 what\r\n",
        b"150 early\r\n",
        b"250 o\x00k\r\n",
        b"250 o\rk\r\n",
        b"25\r\n",
        b"250_ok\r\n",
        b"hello\r\n",
        b"\r\n",
        b"250-" + b"a" * MAX_LINE_OCTETS,
        b"250-" + b"a" * MAX_LINE_OCTETS + b"\r\n",
        b"250-more\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_is_no_reply_breaks_the_reader_for_good(octets: bytes) -> None:
    reader = ReplyReader()
    reader.feed(octets)
    with pytest.raises(ReplyError) as first:
        reader.next_reply()
    assert first.value.enhanced in ("4.5.0", "4.4.2")
    reader.feed(b"\r\n250 ok\r\n")
    with pytest.raises(ReplyError):
        reader.next_reply()


@pytest.mark.row("K1")
def test_limits_are_said_to_be_timeouts_so_that_the_site_is_left_alone() -> None:
    reader = ReplyReader()
    reader.feed(b"x" * MAX_LINE_OCTETS)
    with pytest.raises(ReplyError) as error:
        reader.next_reply()
    assert error.value.enhanced == "4.4.2"


@pytest.mark.row("K4")
def test_lines_with_different_codes_are_no_reply() -> None:
    assert read(b"250-fine\r\n550 no\r\n") == ([], "the lines of a reply have different codes")


@pytest.mark.row("K4")
def test_escape_sequences_come_out_escaped() -> None:
    replies, _ = read(b"550 \x1b[31m<script>\r\n")
    assert replies[0].lines == ("\\x1b[31m<script>",)


def test_the_longest_line_and_the_most_lines_are_taken() -> None:
    replies, error = read(b"250-" + b"a" * (MAX_LINE_OCTETS - 6) + b"\r\n" + b"250-b\r\n" * (MAX_LINES - 2) + b"250 c\r\n")
    assert error is None
    assert len(replies[0].lines) == MAX_LINES


def test_empty_tells_whether_anything_waits() -> None:
    reader = ReplyReader()
    assert reader.empty
    reader.feed(b"250-a\r\n")
    assert reader.next_reply() is None
    assert not reader.empty
    reader.feed(b"250 b\r\n2")
    assert reader.next_reply() == Reply(250, ("a", "b"))
    assert not reader.empty


PIECES = st.sampled_from(
    [b"250 ok\r\n", b"250-", b"550 5.1.1 no\r\n", b"\r\n", b"\n", b"\r", b"354", b" ", b"-", b"\0", b"421 x\r\n", b"a"]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_segments_make_no_difference(octets: bytes, sizes: list[int]) -> None:
    assert read(octets) == read(octets, sizes) == read(octets, [1])
