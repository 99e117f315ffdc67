"""Line ends of raw messages: one reading, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.line_ends import BareLineEnd, LineEnds

END_OF_DATA = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n",
]  # fmt: skip


def passed(octets: bytes, step: int = 1 << 20) -> bytes:
    ends = LineEnds()
    return b"".join([ends.feed(octets[at : at + step]) for at in range(0, len(octets), step)] + [ends.end()])


@pytest.mark.row("A11")
@pytest.mark.parametrize("octets", END_OF_DATA)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_no_other_end_of_data_passes_in_a_message_with_crlf(octets: bytes, step: int) -> None:
    with pytest.raises(BareLineEnd):
        passed(b"From: a@b.example\r\n\r\nHello" + octets + b"MAIL FROM:<x@y.example>\r\n", step)


@pytest.mark.row("A11")
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_lf_everywhere_becomes_crlf_everywhere(step: int) -> None:
    assert passed(b"A: b\n\nHello\n.\nQUIT\n", step) == b"A: b\r\n\r\nHello\r\n.\r\nQUIT\r\n"
    assert passed(b"A: b\r\n\r\nHello", step) == b"A: b\r\n\r\nHello\r\n"
    with pytest.raises(BareLineEnd):
        passed(b"A: b\n\nHello\r\n", step)


def test_a_cr_at_the_end_is_bare() -> None:
    with pytest.raises(BareLineEnd):
        passed(b"A: b\r\n\r")
    assert passed(b"") == b""


@given(st.text("a\r\n.", max_size=30), st.integers(1, 5))
def test_what_passes_has_only_crlf_and_the_cut_does_not_matter(text: str, step: int) -> None:
    octets = text.encode()
    try:
        whole = passed(octets)
    except BareLineEnd:
        with pytest.raises(BareLineEnd):
            passed(octets, step)
        return
    assert passed(octets, step) == whole
    assert whole.count(b"\r\n") == whole.count(b"\r") == whole.count(b"\n")
    assert whole.replace(b"\r", b"").removesuffix(b"\n") == octets.replace(b"\r", b"").removesuffix(b"\n")
