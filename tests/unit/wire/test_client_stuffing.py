"""Dot-stuffing: whole and in chunks alike, undone by a server's rule, and never a bare CR or LF."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.wire.stuffing import FINAL_DOT, ContentError, Stuffer, stuff

LINES = st.lists(st.sampled_from([b".", b"..", b".x", b"", b"a", b"x.", b"\xff"]), max_size=12)


def chunked(content: bytes, sizes: list[int]) -> bytes:
    stuffer, out, at, turn = Stuffer(), b"", 0, 0
    while at < len(content):
        size = sizes[turn % len(sizes)]
        out += stuffer.feed(content[at : at + size])
        at, turn = at + size, turn + 1
    return out + stuffer.finish()


@given(LINES, st.booleans(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@pytest.mark.row("A9")
def test_stuffed_content_comes_back_whole_however_it_is_cut(lines: list[bytes], ended: bool, sizes: list[int]) -> None:
    content = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    stuffed = stuff(content)
    assert stuffed.endswith(b"\r\n")
    undone = b"".join(line.removeprefix(b".") + b"\r\n" for line in stuffed.removesuffix(b"\r\n").split(b"\r\n"))
    assert undone in (content, content + b"\r\n")
    assert stuff(content, final=True) == stuffed + FINAL_DOT
    assert b"\r\n.\r\n" not in b"\r\n" + stuffed
    if content:
        assert chunked(content, sizes) == stuffed


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"]), max_size=12).map(b"".join),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
@pytest.mark.row("A12")
def test_bare_line_ends_are_never_sent(content: bytes, sizes: list[int]) -> None:
    rest = content.replace(b"\r\n", b"")
    bad = b"\r" in rest or b"\n" in rest
    if bad:
        with pytest.raises(ContentError):
            stuff(content)
        with pytest.raises(ContentError):
            chunked(content, sizes)
    elif content:
        assert chunked(content, sizes) == stuff(content)
