"""Fuzzes the strict mailbox parser and the address lists of header fields, each against what it promises.

A value that exists is valid: it reads back to itself, keeps within RFC 5321's lengths, and hashes the same however often
it is written out. A list never yields a mailbox that the strict parser would not take, and an address that stands in a
display name or a comment is never taken for one that is mailed to.
"""

import sys
import unicodedata

import atheris

with atheris.instrument_imports(include=["postbud"]):
    from postbud.mime.address import AddressError, parse_address_list, parse_mailbox_list
    from postbud.model.mailbox import (
        MAX_DOMAIN_OCTETS,
        MAX_LOCAL_OCTETS,
        MAX_PATH_OCTETS,
        Mailbox,
        MailboxError,
        parse_domain,
    )


def check_mailbox(mailbox: Mailbox) -> None:
    written = str(mailbox)
    assert Mailbox.parse(written, smtputf8=True) == mailbox
    assert written.isascii() or mailbox.needs_smtputf8
    assert len(mailbox.local_part.encode()) <= MAX_LOCAL_OCTETS
    assert len(mailbox.domain) <= MAX_DOMAIN_OCTETS
    assert len(written.encode()) + 2 <= MAX_PATH_OCTETS
    assert not any(unicodedata.category(character) == "Cc" for character in written)
    assert parse_domain(mailbox.domain) == mailbox.domain
    assert mailbox.domain.isascii()
    assert mailbox.domain == mailbox.domain.lower()
    key = mailbox.key()
    assert key.endswith(f"@{mailbox.domain}")
    assert Mailbox(mailbox.local_part, mailbox.domain).key() == key


def read_mailbox(text: str) -> None:
    for smtputf8 in (False, True):
        try:
            mailbox = Mailbox.parse(text, smtputf8=smtputf8)
        except MailboxError:
            continue
        assert smtputf8 or text.rpartition("@")[0].isascii()
        check_mailbox(mailbox)


def read_list(octets: bytes) -> None:
    for parse in (parse_address_list, parse_mailbox_list):
        try:
            found = parse(octets)
        except AddressError:
            continue
        named = found if isinstance(found, list) else found.mailboxes
        for each in named:
            check_mailbox(each.mailbox)
            assert "\r" not in each.display_name
            assert "\n" not in each.display_name
        assert len(named) <= octets.count(b"@")


def test_one_input(octets: bytes) -> None:
    read_mailbox(octets.decode("utf-8", "replace"))
    read_mailbox(octets.decode("latin-1"))
    read_list(octets)


def main() -> None:
    """Fuzz until libFuzzer's `-max_total_time` is over."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
