import hashlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.body import MAX_LINE_OCTETS, WHOLE_OCTETS, BodyScanner, line_ends, scan_body
from postbud.mime.canonical import relaxed_body, relaxed_field, simple_body
from postbud.model.content import BodyFacts

BODIES = (
    st.binary(max_size=200)
    | st.text(" \t\r\nab.æ\0", max_size=60).map(str.encode)
    | st.lists(st.sampled_from([b"", b"a  b", b"\tc ", b"x" * 996, b"x" * 998, b"x" * 999, b"\n", b"\r"]), max_size=6).map(
        b"\r\n".join
    )
)


def slowly(body: bytes) -> bytes:
    """RFC 6376 s3.4.4, by the letter."""
    canonical = re.sub(rb" (?=\r\n)", b"", re.sub(rb"[ \t]+", b" ", body)).removesuffix(b" ")
    while canonical.endswith(b"\r\n"):
        canonical = canonical[:-2]
    return canonical + b"\r\n" if canonical else b""


def in_pieces(body: bytes, cuts: list[int]) -> BodyFacts:
    scanner = BodyScanner()
    position = 0
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        scanner.feed(body[position:cut])
        position = cut
    return scanner.facts()


@given(BODIES, st.lists(st.integers(0, 400), max_size=10))
def test_the_facts_do_not_depend_on_where_a_body_is_cut(body: bytes, cuts: list[int]) -> None:
    assert in_pieces(body, cuts) == scan_body(body) == in_pieces(body, list(range(len(body))))


@given(BODIES)
def test_the_facts_are_what_the_slow_way_says(body: bytes) -> None:
    facts = scan_body(body)
    assert facts == BodyFacts(
        len(body),
        hashlib.sha256(slowly(body)).digest(),
        any(octet > 127 for octet in body),
        0 in body,
        any(len(line) > MAX_LINE_OCTETS for line in body.split(b"\r\n")),
    )
    assert relaxed_body(body) == slowly(body)


@given(BODIES)
def test_the_simple_form_ends_in_one_crlf(body: bytes) -> None:
    canonical = simple_body(body)
    assert canonical.endswith(b"\r\n")
    assert not canonical.endswith(b"\r\n\r\n")
    assert (body + b"\r\n").startswith(canonical)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \t\r\n \r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 s3.4.5
        (b"a", b"a\r\n"),
        (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
    ],
)
def test_the_relaxed_form_is_the_standards(body: bytes, canonical: bytes) -> None:
    assert scan_body(body).sha256_relaxed == hashlib.sha256(canonical).digest()


def test_facts_can_be_asked_for_on_the_way() -> None:
    scanner = BodyScanner()
    scanner.feed(b"a\r")
    assert scanner.facts().sha256_relaxed == hashlib.sha256(b"a\r\r\n").digest()
    scanner.feed(b"\n")
    assert scanner.facts() == scan_body(b"a\r\n")


def test_a_large_body_is_scanned_in_steps_with_the_same_answer() -> None:
    body = b"line with  spaces \r\n" * (WHOLE_OCTETS // 20 + 10)
    assert scan_body(body).sha256_relaxed == hashlib.sha256(slowly(body)).digest()
    assert not scan_body(body).long_line


@pytest.mark.parametrize("pattern", [b"\r\n", b" ", b"\r", b"\n", b" \r\n", b"\r\r\n", b"\t ", b" \r"])
def test_the_time_is_linear_and_memory_does_not_follow_line_ends(pattern: bytes) -> None:
    chunk = pattern * (65536 // len(pattern))
    scanner = BodyScanner()
    started = time.perf_counter()
    for _ in range(64):
        scanner.feed(chunk)
    scanner.facts()
    scan_body(chunk * 16)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(("octets", "long"), [(997, False), (998, False), (999, True), (5000, True)])
@pytest.mark.parametrize(("before", "behind"), [(0, 0), (1, 0), (0, 1), (700, 700), (3, 1)])
def test_a_long_line_is_found_wherever_it_stands(octets: int, long: bool, before: int, behind: int) -> None:
    body = b"ab\r\n" * before + b"x" * octets + b"\r\n" + b"cd\r\n" * behind
    assert scan_body(body).long_line is long
    assert in_pieces(body, [len(body) // 2, len(body) // 3]).long_line is long


def test_many_empty_lines_inside_are_hashed_in_blocks() -> None:
    body = b"a\r\n" + b"\r\n" * 20_000 + b"b\r\n"
    assert in_pieces(body, [5, 20_000]).sha256_relaxed == hashlib.sha256(body).digest()


def test_line_ends_at_the_end_are_counted_in_pairs_only() -> None:
    assert [line_ends(octets) for octets in (b"", b"\r\n", b"\n", b"\n\r\n", b"a\r\n\r\n", b"\r\r\n")] == [0, 2, 0, 2, 4, 2]


def test_vertical_tabs_are_no_white_space_for_dkim() -> None:
    assert relaxed_field(b"a", b" x\x0b \x0cy\t\r\n  z \r\n") == b"a:x\x0b \x0cy z\r\n"
    assert relaxed_field(b"a", b" x \t\r\n  z \r\n") == b"a:x z\r\n"
