"""Content ends where CRLF.CRLF is and nowhere else, whatever the segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.refusal import Why
from postbud.wire.data import DataReader
from postbud.wire.stuffing import stuff

LIMIT = 200


def read(
    octets: bytes, cuts: list[int] | None = None, *, normalise: bool = False
) -> tuple[bytes | None, Why | None, bytes, bool]:
    reader = DataReader(LIMIT, normalise=normalise)
    content, rest, start = b"", b"", 0
    for cut in [*sorted(cuts or []), len(octets)]:
        piece, start = octets[start:cut], max(start, cut)
        if reader.ended:
            rest += piece
        else:
            content += reader.feed(piece)
            rest += reader.rest if reader.ended else b""
    return (None if reader.flaw else content), reader.flaw, rest, reader.ended


SMUGGLING = {
    "A1": [b"x\n.\nMAIL"],
    "A2": [b"x\n.\r\nMAIL"],
    "A3": [b"x\r\n.\nMAIL"],
    "A4": [b"x\r.\rMAIL", b"x\r.\nMAIL", b"x\n.\rMAIL", b"x\r.\r\nMAIL", b"x\r\n.\rMAIL"],
    "A6": [b"x\r\n.\r\r\nMAIL"],
}


@pytest.mark.parametrize(
    "octets", [pytest.param(o, marks=pytest.mark.row(row)) for row, all_of_it in SMUGGLING.items() for o in all_of_it]
)
def test_no_other_line_end_ends_content(octets: bytes) -> None:
    whole = octets + b" FROM:<a@b.example>\r\nDATA\r\n.\r\nNOOP\r\n"
    assert read(whole) == (None, Why.BAD_LINE_ENDS, b"NOOP\r\n", True)
    for cut in range(len(whole)):
        assert read(whole, [cut]) == (None, Why.BAD_LINE_ENDS, b"NOOP\r\n", True)


@pytest.mark.row("A5")
@pytest.mark.parametrize("octets", [b"x\r\n\0.\r\nMAIL\r\n.\r\n", b"x\r\n.\0\r\nMAIL\r\n.\r\n"])
def test_nul_spoils_content_and_does_not_end_it(octets: bytes) -> None:
    assert read(octets) == (None, Why.BAD_CONTENT, b"", True)


@pytest.mark.row("A7")
def test_bare_lf_becomes_crlf_where_asked_for_but_never_ends_content() -> None:
    assert read(b"a: b\n\nx\n.\ny\r\n.\r\n", normalise=True) == (b"a: b\r\n\r\nx\r\n.\r\ny\r\n", None, b"", True)
    assert read(b"x\ry\r\n.\r\n", normalise=True)[1] is Why.BAD_LINE_ENDS


@pytest.mark.row("A9")
@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n..x\r\n.\r\n", b"..\r\n.x\r\n"),
        (b".x: y\r\n\r\n.\r\n", b"x: y\r\n\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
    ],
)
def test_dots_are_taken_out_once(octets: bytes, content: bytes) -> None:
    for cut in range(len(octets) + 1):
        assert read(octets + b"QUIT\r\n", [cut]) == (content, None, b"QUIT\r\n", True)


@pytest.mark.row("A10")
def test_too_big_weighs_more_than_what_else_is_wrong() -> None:
    octets = b"x" * LIMIT + b"\r\n\0\n.\nMAIL FROM:<a@b.example>\r\n.\r\nQUIT\r\n"
    assert read(octets) == (None, Why.TOO_BIG, b"QUIT\r\n", True)
    assert read(octets, list(range(len(octets)))) == (None, Why.TOO_BIG, b"QUIT\r\n", True)


@pytest.mark.row("A10")
def test_nothing_is_kept_beyond_the_limit() -> None:
    reader = DataReader(LIMIT)
    assert sum(len(reader.feed(b"x" * 50)) for _ in range(20)) <= LIMIT
    assert reader.flaw is Why.TOO_BIG
    exact = DataReader(LIMIT)
    assert exact.feed(b"x" * (LIMIT - 2) + b"\r\n.\r\n") == b"x" * (LIMIT - 2) + b"\r\n"
    assert exact.flaw is None


def test_content_that_did_not_end_is_not_ended() -> None:
    assert read(b"x\r\n.\r")[3] is False


OCTETS = st.lists(st.sampled_from([b"\r\n", b"\r\n.", b".", b"\r", b"\n", b"\0", b"x", b"\r\n.\r\n", b"yz" * 40])).map(b"".join)


@pytest.mark.row("A8")
@given(OCTETS, st.lists(st.integers(0, 400)), st.booleans())
def test_segments_make_no_difference(octets: bytes, cuts: list[int], normalise: bool) -> None:
    whole = read(octets, normalise=normalise)
    assert read(octets, [cut for cut in cuts if cut <= len(octets)], normalise=normalise) == whole
    assert read(octets, list(range(len(octets))), normalise=normalise) == whole


@pytest.mark.row("A9")
@given(st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"x."]), min_size=1, max_size=20))
def test_what_the_client_side_stuffs_comes_back_unchanged(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    assert read(stuff(content, final=True)) == (content, None, b"", True)
