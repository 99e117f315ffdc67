"""Odd and broken messages that others collected, through every reader of this floor: no exception, bounded time."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shared import shared_data

from postbud.mime.address import AddressError, parse_address_list
from postbud.mime.body import scan_body
from postbud.mime.date import parse_date
from postbud.mime.header import HeaderSection, MalformedHeader, split_content
from postbud.mime.parts import split_parts
from postbud.mime.report import parse_dsn
from postbud.mime.transfer import fits, to_quoted_printable
from postbud.mime.verify import verify
from postbud.mime.words import decode_words


def messages() -> Iterator[tuple[Path, bytes]]:
    for path in sorted(shared_data("mime").rglob("*")):
        if path.is_file() and "LICENSE" not in path.name:
            octets = path.read_bytes()
            yield path, octets
            yield path, octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.row("G6", "G7")
def test_every_odd_message_is_read_or_refused_within_bounded_time() -> None:
    parsed = total = 0
    for path, octets in messages():
        started = time.perf_counter()
        split = split_content(octets)
        if split is None:
            continue
        total += 1
        header, start = split
        body = octets[start:]
        scan_body(body)
        split_parts(header, body)
        parse_dsn(header, body)
        verify(header, body, lambda _: None)
        for seven_bit in (False, True):
            changed = to_quoted_printable(header, body, seven_bit=seven_bit)
            assert changed is None or fits(changed[1], seven_bit=seven_bit)
        try:
            section = HeaderSection.parse(header)
        except MalformedHeader:
            continue
        parsed += 1
        for field in section.fields:
            decode_words(field.value)
            parse_date(field.value)
            try:
                parse_address_list(field.value)
            except AddressError:
                continue
        assert time.perf_counter() - started < 1, path
    assert total > 100
    assert parsed > 100
