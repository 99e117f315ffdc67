"""One strict mailbox parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.mailbox import Flaw, Mailbox, MailboxError, parse_domain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a@b.dk", "a@b.dk"),
        ("A.b+tag@EXAMPLE.com", "A.b+tag@example.com"),
        ('"a b"@x.dk', '"a b"@x.dk'),
        ("u@bücher.example", "u@xn--bcher-kva.example"),
        ("søren@æble.example", "søren@xn--ble-xla.example"),
        ('"søren b"@x.dk', '"søren b"@x.dk'),
        ("=?utf-8?q?a=40b?=@host.dk", "=?utf-8?q?a=40b?=@host.dk"),
        ("u%v@x.dk", "u%v@x.dk"),
        ("u@xn--bcher-kva.example", "u@xn--bcher-kva.example"),
        ("u@a--b.example", "u@a--b.example"),
    ],
)
@pytest.mark.row("E5", "E6")
def test_a_mailbox_is_taken_as_it_is(text: str, shown: str) -> None:
    assert str(Mailbox.parse(text, smtputf8=True)) == shown


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", Flaw.SYNTAX),
        ("a", Flaw.SYNTAX),
        ("@x.dk", Flaw.SYNTAX),
        ("a@", Flaw.SYNTAX),
        ("a b@x.dk", Flaw.SYNTAX),
        ("a@x@y.dk", Flaw.SYNTAX),
        ("<a@x.dk>", Flaw.SYNTAX),
        ("@a,@b:u@c.dk", Flaw.SYNTAX),
        ('"a\tb"@x.dk', Flaw.LOCAL_PART),
        ('"a"b"@x.dk', Flaw.LOCAL_PART),
        ('"sø\x00"@x.dk', Flaw.SYNTAX),
        ('"sø"b"@x.dk', Flaw.LOCAL_PART),
        ("sø ren@x.dk", Flaw.SYNTAX),
        ("a" * 65 + "@x.dk", Flaw.TOO_LONG),
        ("a" * 60 + "@" + ".".join(["b" * 63] * 3) + ".dk", Flaw.TOO_LONG),
        ("a@" + ".".join(["b" * 63] * 4) + ".dk", Flaw.DOMAIN),
        ("a@" + "b" * 64 + ".dk", Flaw.DOMAIN),
        ("a@x.dk.", Flaw.DOMAIN),
        ("a@localhost", Flaw.DOMAIN),
        ("a@-x.dk", Flaw.DOMAIN),
        ("a@x_y.dk", Flaw.DOMAIN),
        ("a@1.2.3.4", Flaw.DOMAIN),
        ("a@ab--cd.dk", Flaw.DOMAIN),
        ("a@xn--0049.dk", Flaw.DOMAIN),
        ("a@xn--ppal-wsd6b.example", Flaw.DOMAIN),  # Latin p with Cyrillic letters
        ("a@p\u0430yp\u0430l.example", Flaw.DOMAIN),
        ("a@x\u200by.example", Flaw.SYNTAX),
        ("a\u202eb@x.dk", Flaw.SYNTAX),
        ("a@☃\u2028.dk", Flaw.SYNTAX),
        ("a@\u00ad.dk", Flaw.SYNTAX),
        ("a@[127.0.0.1]", Flaw.LITERAL),
        ("a@[IPv6:::1]", Flaw.LITERAL),
        ("a@[300.0.0.1]", Flaw.SYNTAX),
        ("a@[127.0.0.1", Flaw.SYNTAX),
        ("a@[IPv6:zz]", Flaw.SYNTAX),
    ],
)
@pytest.mark.row("E1", "E2", "E3", "E6", "E8", "E10")
def test_what_is_no_mailbox_says_why(text: str, flaw: Flaw) -> None:
    with pytest.raises(MailboxError) as caught:
        Mailbox.parse(text, smtputf8=True)
    assert caught.value.flaw is flaw


def test_a_mailbox_beyond_ascii_needs_smtputf8() -> None:
    with pytest.raises(MailboxError) as caught:
        Mailbox.parse("søren@x.dk")
    assert caught.value.flaw is Flaw.NEEDS_SMTPUTF8
    assert Mailbox.parse("søren@x.dk", smtputf8=True).needs_smtputf8
    assert not Mailbox.parse("u@bücher.example", smtputf8=True).needs_smtputf8


def test_the_key_folds_case_and_quoting_but_no_plus_or_dots() -> None:
    assert Mailbox.parse("A.B+c@X.dk").key() == "a.b+c@x.dk"
    assert Mailbox.parse('"A\\ b"@x.dk').key() == "a b@x.dk"
    assert Mailbox.parse("e\u0301@x.dk", smtputf8=True).key() == "é@x.dk"


def test_a_domain_that_idna_refuses_is_refused() -> None:
    with pytest.raises(MailboxError):
        parse_domain("☃.example")


@given(st.text(max_size=80))
def test_any_text_is_a_mailbox_or_a_mailbox_error_and_reparses_to_itself(text: str) -> None:
    try:
        mailbox = Mailbox.parse(text, smtputf8=True)
    except MailboxError:
        return
    assert Mailbox.parse(str(mailbox), smtputf8=True) == mailbox


@given(st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~.\"\\@<>\[\]: -]{1,70}", fullmatch=True))
def test_a_mailbox_never_holds_what_would_end_a_path(text: str) -> None:
    try:
        mailbox = Mailbox.parse(text)
    except MailboxError:
        return
    assert "\r" not in str(mailbox)
    if not mailbox.local_part.startswith('"'):
        assert not set(str(mailbox)) & set(' <>"\\')
