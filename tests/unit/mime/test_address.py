import contextlib
import email.policy
import time
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.address import AddressError, AddressList, parse_address_list, parse_mailbox_list


def one(value: bytes) -> tuple[str, str]:
    (found,) = parse_mailbox_list(value)
    return found.display_name, str(found.mailbox)


def refused(value: bytes) -> str:
    with pytest.raises(AddressError) as caught:
        parse_mailbox_list(value)
    return caught.value.why


@pytest.mark.parametrize(
    ("value", "name", "mailbox"),
    [
        (b"a@b.example", "", "a@b.example"),
        (b" <a@b.example> ", "", "a@b.example"),
        (b"< a@b.example >", "", "a@b.example"),
        (b"Anna Berg <a@B.Example>", "Anna Berg", "a@b.example"),
        (b'"Berg, Anna" <a@b.example>', "Berg, Anna", "a@b.example"),
        (b'"Anna \\"B\\"" <a@b.example>', 'Anna "B"', "a@b.example"),
        (b"J. R. R. Tolkien <j@b.example>", "J. R. R. Tolkien", "j@b.example"),
        (b"a@b.example (Anna)", "Anna", "a@b.example"),
        (b"(x) a@b.example (Anna \\) (of) Berg)", "Anna ) (of) Berg", "a@b.example"),
        (b"Anna (work) <a@b.example>", "Anna", "a@b.example"),
        (b"Anna\r\n Berg\r\n <a@b.example>", "Anna Berg", "a@b.example"),
        (b'"a b"@b.example', "", '"a b"@b.example'),
        (b'<"a>b"@b.example>', "", '"a>b"@b.example'),
        (b"=?utf-8?q?J=C3=BCrgen?= <j@b.example>", "Jürgen", "j@b.example"),
        (b'"=?utf-8?q?J=C3=BCrgen?=" <j@b.example>', "Jürgen", "j@b.example"),
        ("Jürgen <jü@b.example>".encode(), "Jürgen", "jü@b.example"),
        ("Jürgen <jü@bü.example>".encode(), "Jürgen", "jü@xn--b-eha.example"),
        (b"J\xfcrgen <j@b.example>", "J�rgen", "j@b.example"),
        (b"J\xfcrgen (x) <j@b.example>", "J�rgen", "j@b.example"),
        (b"a@b.example <A@b.example>", "a@b.example", "A@b.example"),
        (b", a@b.example,, ", "", "a@b.example"),
        (b'Anna "B" Berg <a@b.example>', "Anna B Berg", "a@b.example"),
    ],
)
def test_what_real_mail_writes_is_read(value: bytes, name: str, mailbox: str) -> None:
    assert one(value) == (name, mailbox)


def test_lists_keep_their_order() -> None:
    found = parse_mailbox_list(b'Anna <a@b.example>, "C, D" <c@b.example> , e@b.example (E)')
    assert [(n.display_name, n.mailbox.local_part) for n in found] == [("Anna", "a"), ("C, D", "c"), ("E", "e")]


@pytest.mark.row("E4")
@pytest.mark.parametrize(
    "value",
    [
        b"<a@victim.com>@evil.com",
        b"a@victim.com(<c@evil.com>)",
        b"a@victim.com <c@evil.com>",
        b"<a@victim.com> <c@evil.com>",
        b"<a@victim.com> c@evil.com",
        b"a@victim.com c@evil.com",
        b"a @victim.com",
        b"a(x)@victim.com",
        b"<<a@victim.com>>",
        b"<a@victim.com",
        b"a@victim.com>",
        b'"a@victim.com',
        b"<@x.example,@y.example:a@victim.com>",
        b"a@[127.0.0.1]",
        b"a@victim.com;",
        b"a:b:c@d.example;;",
        b":a@b.example;",
        b"<a@b.example>:;",
        b"g: a@b.example",
        b"a@b.example (x",
        b"a\\b@c.example",
        b"a@b.example\0",
        b"a@b.example\nBcc: x@y.example",
        b"g: a@b.example; x@y.example",
        b"\xff@b.example",
    ],
)
def test_what_parsers_read_differently_is_refused(value: bytes) -> None:
    assert refused(value)


@pytest.mark.row("E4")
def test_an_address_in_a_quoted_local_part_or_display_name_is_not_the_address() -> None:
    assert one(b'"a@victim.com x"@evil.com') == ("", '"a@victim.com x"@evil.com')
    assert one(b'"a@victim.com" <c@evil.com>') == ("a@victim.com", "c@evil.com")


@pytest.mark.row("E5")
def test_an_encoded_word_is_never_decoded_into_an_address() -> None:
    assert one(b"=?utf-8?q?a=40b?=c@host.example") == ("", "=?utf-8?q?a=40b?=c@host.example")
    assert one(b"=?utf-8?q?a=40b.example?= <c@host.example>") == ("a@b.example", "c@host.example")
    assert refused(b"=?utf-8?q?a=40b.example?=")


@pytest.mark.row("E12")
def test_groups_are_no_mailboxes_and_told_apart() -> None:
    assert "group" in refused(b"undisclosed-recipients:;")
    assert "group" in refused(b"Team: a@b.example, c@d.example;")
    found = parse_address_list(b'Team "A": Anna <a@b.example>, c@d.example; , x@y.example')
    assert found.groups == ["Team A"]
    assert [named.mailbox.local_part for named in found.mailboxes] == ["a", "c", "x"]
    assert parse_address_list(b"") == AddressList([], [])


@pytest.mark.row("E12")
def test_two_mailboxes_are_both_seen() -> None:
    assert [str(n.mailbox) for n in parse_mailbox_list(b"a@ours.example, b@foreign.example")] == [
        "a@ours.example",
        "b@foreign.example",
    ]


def test_no_mailbox_and_too_many_are_refused() -> None:
    assert refused(b"") == "no mailbox"
    assert refused(b" , ") == "no mailbox"
    with pytest.raises(AddressError, match="too many"):
        parse_mailbox_list(b"a@b.example, c@d.example", limit=1)


@pytest.mark.row("G7")
@pytest.mark.parametrize(
    "value",
    [
        b"a@b.dk, " * 32_000,
        b"(" * 2000,
        b"a@b.example" + b"(x)" * 2000,
        b"=?utf-8?q?x?= " * 4000 + b"<a@b.example>",
        b" " * 200_000,
        b'"' * 200_001,
        b'<"' * 100_000,
        b"<" + b'"a"' * 60_000,
        b"(\\" * 100_000,
        b"a " * 100_000,
        b"a" * 200_000 + b" " * 50_000 + b"x@",
        b"a:;" * 80_000,
    ],
)
def test_hostile_lists_cost_little(value: bytes) -> None:
    started = time.perf_counter()
    with contextlib.suppress(AddressError):
        parse_mailbox_list(value)
    assert time.perf_counter() - started < 0.5


@given(st.binary(max_size=80) | st.text('ab@.<>"(),:;\\ =?\r\n\t', max_size=40).map(str.encode))
def test_any_octets_are_a_list_or_an_address_error(value: bytes) -> None:
    try:
        found = parse_address_list(value)
    except AddressError:
        pass
    else:
        for named in found.mailboxes:
            assert str(named.mailbox).rpartition("@")[2] == named.mailbox.domain
    with contextlib.suppress(AddressError):
        assert parse_mailbox_list(value) == parse_address_list(value).mailboxes


ATOMS = st.text("abcxyz019-_+", min_size=1, max_size=8)


@given(st.lists(st.tuples(st.text("abc XYZ.,", max_size=12).map(str.strip), ATOMS, st.booleans()), min_size=1, max_size=5))
def test_what_the_standard_librarys_parser_finds_in_clean_lists_is_what_is_found(entries: list[tuple[str, str, bool]]) -> None:
    pieces = [f'"{name}" <{local}@b.example>' if named else f"{local}@b.example" for name, local, named in entries]
    value = ", ".join(pieces).encode()
    oracle = BytesParser(policy=email.policy.default).parsebytes(b"To: " + value + b"\r\n\r\n")["To"].addresses
    found = parse_mailbox_list(value)
    assert [str(named.mailbox) for named in found] == [address.addr_spec for address in oracle]
