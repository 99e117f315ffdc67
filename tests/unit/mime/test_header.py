import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.header import MAX_FIELDS, MAX_SECTION_OCTETS, HeaderSection, MalformedHeader, split_content, split_fields

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
LINES = st.binary(max_size=60).map(lambda octets: octets.translate(None, b"\r\n\0"))
FIELDS = st.builds(
    lambda name, lines: name.encode() + b":" + b"\r\n ".join(lines) + b"\r\n", NAMES, st.lists(LINES, min_size=1, max_size=3)
)


def refused(header: bytes) -> MalformedHeader:
    with pytest.raises(MalformedHeader) as caught:
        HeaderSection.parse(header)
    return caught.value


@given(st.lists(FIELDS, max_size=8))
def test_the_fields_joined_are_the_section_octet_for_octet(fields: list[bytes]) -> None:
    section = HeaderSection.parse(b"".join(fields))
    assert [field.raw for field in section.fields] == fields
    assert section.without(lambda _: False) == section.octets == b"".join(fields)


@given(st.binary(max_size=300))
def test_any_octets_are_a_section_or_malformed_and_nothing_else(octets: bytes) -> None:
    try:
        section = HeaderSection.parse(octets)
    except MalformedHeader:
        pass
    else:
        assert b"".join(field.raw for field in section.fields) == octets


@given(st.lists(FIELDS, max_size=4), st.binary(max_size=60))
def test_what_is_split_and_joined_again_is_the_same(fields: list[bytes], body: bytes) -> None:
    octets = b"".join(fields) + b"\r\n" + body
    split = split_content(octets)
    assert split is not None
    header, start = split
    assert (header, octets[start:]) == (b"".join(fields), body)


def test_a_beginning_without_an_empty_line_asks_for_more() -> None:
    assert split_content(b"Subject: x\r\n", final=False) is None
    assert split_content(b"", final=False) is None
    assert split_content(bytearray(b"Subject: x\r\n\r\nbody"), final=False) == (b"Subject: x\r\n", 14)


def test_content_without_an_empty_line_is_all_header_section_when_it_ends_in_crlf() -> None:
    assert split_content(b"Subject: x\r\n") == (b"Subject: x\r\n", 12)
    assert split_content(b"Subject: x") is None
    assert split_content(b"") == (b"", 0)
    assert split_content(b"\r\nbody") == (b"", 2)


def test_fields_are_found_by_name_in_their_order_and_unfolded() -> None:
    section = HeaderSection.parse(b"To: a\r\nX-Long:  one\r\n\ttwo \r\nTO: b\r\n")
    assert [field.value for field in section.get_all(b"to")] == [b"a", b"b"]
    assert section.value(b"x-long") == b"one\ttwo"
    assert section.get_all(b"x-long")[0].body == b"  one\r\n\ttwo \r\n"
    assert (section.count(b"to"), section.count(b"cc"), section.value(b"cc"), section.get_all(b"cc")) == (2, 0, None, [])


def test_unwanted_fields_go_with_their_continuation_lines() -> None:
    section = HeaderSection.parse(b"A: 1\r\nBcc: x\r\n y\r\nB: 2\r\nbcc: z\r\n")
    assert section.without(lambda name: name == b"bcc") == b"A: 1\r\nB: 2\r\n"


def test_a_section_of_no_fields_is_one() -> None:
    assert HeaderSection.parse(b"").fields == []


@pytest.mark.row("G1")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b" starts: with space\r\n", "starts with white space"),
        (b"\tFrom: x\r\n", "starts with white space"),
        (b"From: x\r\nno colon here\r\n", "without a colon"),
        (b"From : x\r\n", "name is malformed"),
        (b": x\r\n", "name is malformed"),
        (b"Su bject: x\r\n", "name is malformed"),
        (b"Subj\xc3\xa6t: x\r\n", "name is malformed"),
        (b"From: x\r\n\r\n", "empty line"),
        (b"\r\n", "empty line"),
        (b"From: x", "does not end in CRLF"),
        (b"From: x\0\r\n", "NUL"),
    ],
)
def test_what_is_no_header_section_is_refused_with_its_reason(header: bytes, why: str) -> None:
    error = refused(header)
    assert why in error.why
    assert not error.too_big


@pytest.mark.row("A7")
@pytest.mark.parametrize("header", [b"From: x\nTo: y\r\n", b"From: x\rTo: y\r\n", b"From: x\r\r\n", b"From: x\n\r\n"])
def test_a_bare_cr_or_lf_is_refused(header: bytes) -> None:
    assert "bare CR or LF" in refused(header).why


@pytest.mark.row("G14")
def test_an_mbox_line_is_no_field() -> None:
    assert "mbox line" in refused(b"From me@acme.example Tue Nov 24 21:07:17 2026\r\nFrom: me@acme.example\r\n").why
    assert "mbox line" in refused(b"From me\r\n").why


@pytest.mark.row("G2")
def test_a_line_of_998_octets_is_taken_and_one_more_is_refused() -> None:
    HeaderSection.parse(b"X: " + b"a" * 995 + b"\r\n")
    error = refused(b"X: " + b"a" * 996 + b"\r\n")
    assert "998" in error.why
    assert not error.too_big
    assert "998" in refused(b"X: y\r\n " + b"a" * 998 + b"\r\n").why


@pytest.mark.row("G2")
def test_budgets_on_the_section_and_the_number_of_fields_say_too_big() -> None:
    HeaderSection.parse(b"A: b\r\n" * MAX_FIELDS)
    assert refused(b"A: b\r\n" * (MAX_FIELDS + 1)).too_big
    line = b"X: " + b"a" * 900 + b"\r\n"
    assert refused(line * (MAX_SECTION_OCTETS // len(line) + 1)).too_big


@pytest.mark.row("G8")
def test_names_of_scripting_traps_are_text() -> None:
    section = HeaderSection.parse(b"__proto__: x\r\nconstructor: y\r\nContent-Type: a/b; name*0*=../../etc\r\n")
    assert section.value(b"__proto__") == b"x"
    assert section.count(b"constructor") == 1
    assert refused(b"X-" + b"a" * (1 << 20) + b"\r\n").too_big


@pytest.mark.row("G2")
@pytest.mark.parametrize("pattern", [b"X:\r\n", b"a", b"\r\n ", b": ", b"\r", b" ", b"x:\r\n y\r\n"])
def test_the_time_is_linear(pattern: bytes) -> None:
    octets = pattern * (MAX_SECTION_OCTETS // len(pattern))
    started = time.perf_counter()
    with contextlib.suppress(MalformedHeader):
        HeaderSection.parse(octets)
    split_fields(octets)
    assert time.perf_counter() - started < 0.5


def test_a_piece_without_crlf_at_the_end_stays_when_only_splitting() -> None:
    assert split_fields(b"a: b\r\nc") == [b"a: b\r\n", b"c"]
