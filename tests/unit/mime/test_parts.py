import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.parts import ContentType, decode_transfer, find_field, parse_content_type, split_parts

MIXED = b'Content-Type: multipart/mixed;\r\n boundary="b"\r\n'


def bodies(header: bytes, body: bytes) -> list[bytes]:
    return [body[part.start : part.end] for part in split_parts(header, body).parts]


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        (None, b"text/plain", {}),
        (b"", b"text/plain", {}),
        (b"nonsense", b"text/plain", {}),
        (b"Text/HTML", b"text/html", {}),
        (
            b'multipart/mixed; Boundary="a \\"b"; charset=utf-8',
            b"multipart/mixed",
            {b"boundary": b'a "b', b"charset": b"utf-8"},
        ),
        (b"a/b; x=1; x=2; y", b"a/b", {b"x": b"1"}),
        (b"a/b; name*0*=utf-8''../../etc", b"a/b", {b"name*0*": b"utf-8''../../etc"}),
    ],
)
def test_content_types_are_read_tolerantly(value: bytes | None, kind: bytes, parameters: dict[bytes, bytes]) -> None:
    found = parse_content_type(value)
    assert (found.name, found.parameters) == (kind, parameters)


def test_parameters_are_bounded() -> None:
    assert len(parse_content_type(b"a/b" + b"".join(b";p%d=x" % n for n in range(1000))).parameters) == 50


def test_a_field_is_found_by_name_folded_or_not() -> None:
    assert find_field(b"A: 1\r\nb : x\r\n\ty\r\nB: 2\r\n", b"b") == b"x\ty"
    assert find_field(b"XB: 1\r\n b: 2\r\n", b"b") is None


def test_parts_are_spans_of_the_body_without_the_crlf_of_the_delimiter() -> None:
    body = b"preamble\r\n--b\r\nX: 1\r\n\r\none\r\n\r\n--b \r\n\r\ntwo\r\n--b--\r\nepilogue\r\n--b\r\n\r\nno\r\n"
    assert bodies(MIXED, body) == [body, b"one\r\n", b"two"]
    split = split_parts(MIXED, body)
    assert split.complete
    assert [part.field(b"x") for part in split.parts] == [None, b"1", None]
    assert [(part.depth, part.container, part.is_multipart) for part in split.parts] == [
        (0, b"", True),
        (1, b"mixed", False),
        (1, b"mixed", False),
    ]


def test_nested_parts_come_in_the_order_of_the_octets() -> None:
    body = (
        b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\n1\r\n--c\r\n\r\n2\r\n--c--\r\n"
        b"--b\r\n\r\n3\r\n--b--\r\n"
    )
    split = split_parts(MIXED, body)
    assert [part.depth for part in split.parts] == [0, 1, 2, 2, 1]
    assert [body[part.start : part.end] for part in split.parts if not part.is_multipart] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("header", "body", "found"),
    [
        (b"Content-Type: multipart/mixed\r\n", b"--\r\n\r\nx\r\n", 1),
        (MIXED, b"no delimiter\r\n", 1),
        (MIXED, b"--b--\r\n", 1),
        (MIXED, b"--b", 1),
        (MIXED, b"--b\r\n", 2),
        (MIXED, b"--b\r\n--b\r\n--b--", 3),
        (MIXED, b"--bb\r\n\r\nx\r\n--b\r\n\r\ny", 2),
        (MIXED, b"x--b\r\n\r\nx\r\n", 1),
        (MIXED, b"--b\r\nonly: header\r\n--b--", 2),
    ],
)
def test_odd_delimiters(header: bytes, body: bytes, found: int) -> None:
    split = split_parts(header, body)
    assert len(split.parts) == found
    assert split.complete


def test_parts_of_a_digest_are_messages_unless_they_say_otherwise() -> None:
    body = b"--b\r\n\r\nFrom: x\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"
    parts = split_parts(b"Content-Type: multipart/digest; boundary=b\r\n", body).parts
    assert [part.content_type.name for part in parts[1:]] == [b"message/rfc822", b"text/plain"]


@pytest.mark.row("G6")
def test_deep_and_many_parts_stay_opaque_and_cost_little() -> None:
    deep = b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(1200))
    many = b"--0\r\n\r\nx\r\n" * 1_000_000
    header = b"Content-Type: multipart/mixed; boundary=0\r\n"
    started = time.perf_counter()
    for body in (deep, many):
        split = split_parts(header, body)
        assert not split.complete
        assert len(split.parts) <= 21
    assert time.perf_counter() - started < 10


@pytest.mark.row("G6")
def test_boundaries_that_begin_with_each_other_are_told_apart() -> None:
    body = b"--b\r\nContent-Type: multipart/x; boundary=bb\r\n\r\n--bb\r\n\r\n1\r\n--bbb\r\n--bb--\r\n--b\r\n\r\n2\r\n--b--\r\n"
    assert bodies(MIXED, body)[2:] == [b"1\r\n--bbb", b"2"]


@pytest.mark.parametrize(
    ("octets", "encoding", "decoded"),
    [
        (b"YWI=", b" Base64 ", b"ab"),
        (b"Y", b"base64", b"Y"),
        (b"a=3D=\r\nb", b"quoted-printable", b"a=b"),
        (b"a=3D", b"8bit", b"a=3D"),
        (b"a=3D", None, b"a=3D"),
    ],
)
def test_transfer_encodings_are_undone_where_they_can_be(octets: bytes, encoding: bytes | None, decoded: bytes) -> None:
    assert decode_transfer(octets, encoding) == decoded


@given(
    st.lists(
        st.sampled_from([b"--b", b"--c", b"--", b"\r\n", b" ", b"Content-Type: multipart/x; boundary=c", b"x", b"\r", b"\n"]),
        max_size=30,
    )
)
def test_spans_lie_inside_the_body_in_order(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    end = 0
    for part in split_parts(MIXED, body, max_parts=6, max_depth=3).parts:
        assert 0 <= part.header_start <= part.start <= part.end <= len(body)
        if not part.is_multipart:
            assert part.start >= end
            end = part.end


def test_no_type_is_plain_text() -> None:
    assert ContentType().name == b"text/plain"
