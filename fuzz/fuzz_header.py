"""Fuzzes what reads header sections and bodies: scanner, addresses, words, dates, parts, re-encoding, DKIM.

Every octet string is a section or malformed, and nothing else; what is parsed gives its octets back.
"""

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["postbud"]):
    from postbud.mime.address import AddressError, parse_address_list, parse_mailbox_list
    from postbud.mime.body import BodyScanner, scan_body
    from postbud.mime.date import parse_date
    from postbud.mime.header import HeaderSection, MalformedHeader, split_content
    from postbud.mime.received import is_looping
    from postbud.mime.transfer import fits, to_quoted_printable
    from postbud.mime.verify import Result, verify
    from postbud.mime.words import decode_words

KEY = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # of RFC 8463 A.2


def read_header(header: bytes) -> None:
    try:
        section = HeaderSection.parse(header)
    except MalformedHeader:
        return
    assert b"".join(field.raw for field in section.fields) == header
    assert section.without(lambda _: False) == header
    is_looping(section, "relay.example")
    for field in section.fields:
        decode_words(field.value)
        parse_date(field.value)
        with suppress(AddressError):
            parse_address_list(field.value)
            mailboxes = parse_mailbox_list(field.body)
            assert all(str(named.mailbox).count("@") for named in mailboxes)


def read_body(header: bytes, body: bytes) -> None:
    facts = scan_body(body)
    scanner = BodyScanner()
    for start in range(0, len(body), 7):
        scanner.feed(body[start : start + 7])
    assert scanner.facts() == facts
    for seven_bit in (False, True):
        changed = to_quoted_printable(header, body, seven_bit=seven_bit)
        assert changed is None or fits(changed[1], seven_bit=seven_bit)
    assert all(found.result is not Result.PASS for found in verify(header, body, lambda _: KEY, at=1_700_000_000))


def test_one_input(octets: bytes) -> None:
    split = split_content(octets)
    read_header(octets)
    if split is not None:
        header, start = split
        assert octets.startswith(header)
        read_header(header)
        read_body(header, octets[start:])


def main() -> None:
    """Fuzz until libFuzzer's `-max_total_time` is over."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
