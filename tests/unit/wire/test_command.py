"""Syntax of commands: what is taken, what is refused, and by which code."""

import pytest

from postbud.model.envelope import DEFAULT_NOTIFY, NO_PARAMETERS, Body, MailParameters, Notify, Recipient
from postbud.model.mailbox import Mailbox
from postbud.wire.command import CommandError, parse_hello, parse_mail, parse_rcpt, split


def mail(argument: str | bytes, *, extended: bool = True, tls: bool = False) -> tuple[Mailbox | None, MailParameters]:
    octets = argument if isinstance(argument, bytes) else argument.encode()
    return parse_mail(octets, extended=extended, tls=tls, size_limit_octets=1_000)


def rcpt(argument: str | bytes, *, extended: bool = True, smtputf8: bool = False) -> Recipient:
    octets = argument if isinstance(argument, bytes) else argument.encode()
    return parse_rcpt(octets, extended=extended, smtputf8=smtputf8, hostname="relay.example")


def code(error: CommandError) -> str:
    return f"{error.code} {error.enhanced}"


def mail_code(argument: str | bytes, **how: bool) -> str:
    with pytest.raises(CommandError) as caught:
        mail(argument, **how)
    return code(caught.value)


def rcpt_code(argument: str | bytes, **how: bool) -> str:
    with pytest.raises(CommandError) as caught:
        rcpt(argument, **how)
    return code(caught.value)


def test_verbs_know_no_letter_case_and_arguments_lose_the_spaces_around_them() -> None:
    assert split(b"mail  FROM:<> ") == (b"MAIL", b"FROM:<>")
    assert split(b"QUIT") == (b"QUIT", b"")


@pytest.mark.row("D5")
def test_ehlo_takes_odd_names_but_no_nonsense() -> None:
    for name in ("host.example", "PRINTER_3", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]", "_x.", "a-b"):
        assert parse_hello(name.encode()) == name
    for name in (b"", b"<script>", b"a b", b"\xc3\xa9", b"a" * 256, b"[", b"-x"):
        with pytest.raises(CommandError) as caught:
            parse_hello(name)
        assert code(caught.value) == "501 5.5.4"


def test_reverse_paths() -> None:
    a = Mailbox("a", "acme.example")
    assert mail("FROM:<>") == (None, NO_PARAMETERS)
    assert mail("from:<a@acme.example>") == (a, NO_PARAMETERS)
    assert mail("FROM: <a@acme.example>") == (a, NO_PARAMETERS)
    assert mail('FROM:<"a b@victim.example"@acme.example>')[0] == Mailbox('"a b@victim.example"', "acme.example")


@pytest.mark.row("E1")
@pytest.mark.parametrize(
    "argument",
    ["", "TO:<a@acme.example>", "FROM:", "FROM:a@acme.example", "FROM:<a b@acme.example>", "FROM:<a@acme.example>junk",
     "FROM:<<a@acme.example>>", "FROM:<a@acme.example", "FROM:<a\\@b@acme.example>"],
)  # fmt: skip
def test_paths_without_proper_brackets_are_no_paths(argument: str) -> None:
    assert mail_code(argument) == "501 5.5.4"


@pytest.mark.row("E2")
@pytest.mark.parametrize(
    "mailbox",
    ["a" * 65 + "@acme.example", "a@" + "b" * 64 + ".example", "a@" + ".".join(["b" * 50] * 5) + ".example",
     "a" * 60 + "@" + ".".join(["b" * 48] * 4) + ".example"],
)  # fmt: skip
def test_lengths_beyond_the_standard_are_refused(mailbox: str) -> None:
    assert mail_code(f"FROM:<{mailbox}>") == "501 5.1.7"
    assert rcpt_code(f"TO:<{mailbox}>") == "501 5.1.3"


@pytest.mark.row("E3", "E4", "E7")
@pytest.mark.parametrize(
    ("mailbox", "wanted"),
    [
        ('"a>b"@dest.example', "501 5.1.3"),
        ('"a<b"@dest.example', "501 5.1.3"),
        ('"a', "501 5.1.3"),
        ('"a"b"@dest.example', "501 5.1.3"),
        ("a@victim.example>@dest.example", "501 5.5.4"),
        ("@a.example,@b.example:u@c.example", "501 5.1.3"),
        ("c!u", "501 5.1.3"),
        ("u@[127.0.0.1]", "550 5.1.2"),
        ("u@[IPv6:::1]", "550 5.1.2"),
        ("u@dest", "501 5.1.2"),
        ("u@xn--0049.example", "501 5.1.2"),
        ("u@dest.example.", "501 5.1.2"),
        ("", "501 5.1.3"),
    ],
)
def test_forward_paths_are_refused_by_the_code_of_their_flaw(mailbox: str, wanted: str) -> None:
    assert rcpt_code(f"TO:<{mailbox}>") == wanted


@pytest.mark.row("E10")
def test_addresses_beyond_ascii_need_smtputf8_and_sound_utf_8() -> None:
    assert rcpt_code("TO:<søren@dest.example>") == "553 5.6.7"
    assert rcpt("TO:<søren@dest.example>", smtputf8=True).mailbox == Mailbox("søren", "dest.example")
    assert mail("FROM:<søren@dest.example> SMTPUTF8")[1].smtputf8
    assert rcpt_code(b"TO:<\xff@dest.example>", smtputf8=True) == "501 5.1.3"
    assert mail_code(b"FROM:<\xff@dest.example>") == "501 5.1.7"
    assert rcpt_code("TO:<a\u202eb@dest.example>", smtputf8=True) == "501 5.1.3"


def test_postmaster_alone_is_the_one_of_this_host() -> None:
    assert rcpt("TO:<PostMaster>").mailbox == Mailbox("PostMaster", "relay.example")


def test_all_parameters_of_mail() -> None:
    _, given = mail(
        "FROM:<a@acme.example>  SIZE=10 body=8bitmime SMTPUTF8 REQUIRETLS RET=FULL ENVID=a+2Bb AUTH=x+3Dy@acme.example ",
        tls=True,
    )
    assert given == MailParameters(10, Body.EIGHT_BIT_MIME, True, True, True, "a+b", "x=y@acme.example")
    assert mail("FROM:<> AUTH=<> RET=HDRS BODY=7BIT")[1] == MailParameters(ret_full=False, auth="<>")


@pytest.mark.row("D12", "D13", "D15", "D16")
@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ("FOO", "555 5.5.4"),
        ("REQUIRETLS", "555 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
        ("SIZE=1 SIZE=2", "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("=1", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=abc", "501 5.5.4"),
        ("SIZE=1e9", "501 5.5.4"),
        (f"SIZE={2**70}", "501 5.5.4"),
        ("SIZE=1001", "552 5.3.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("SMTPUTF8=1", "501 5.5.4"),
        ("RET=X", "501 5.5.4"),
        ("ENVID=" + "x" * 101, "501 5.5.4"),
        ("ENVID", "501 5.5.4"),
        ("ENVID=+4G", "501 5.5.4"),
        ("ENVID=a=b", "501 5.5.4"),
        ("ENVID=a+00", "501 5.5.4"),
        ("ENVID=a+0D+0ARCPT", "501 5.5.4"),
        ("ENVID=a+FF", "501 5.5.4"),
        ("ENVID=\u00e9", "501 5.5.4"),
        ("AUTH=nobody", "501 5.5.4"),
    ],
)
def test_bad_parameters_of_mail(parameters: str, wanted: str) -> None:
    assert mail_code(f"FROM:<a@acme.example> {parameters}") == wanted


@pytest.mark.row("D16")
def test_parameters_need_ehlo() -> None:
    assert mail_code("FROM:<> SIZE=1", extended=False) == "555 5.5.4"
    assert rcpt_code("TO:<a@dest.example> NOTIFY=NEVER", extended=False) == "555 5.5.4"


def test_all_parameters_of_rcpt() -> None:
    given = rcpt("TO:<a@dest.example> NOTIFY=SUCCESS,failure ORCPT=rfc822;a+2Bb@dest.example")
    assert given.notify == Notify(success=True, failure=True, delay=False, said=True)
    assert given.orcpt == "rfc822;a+b@dest.example"
    assert rcpt("TO:<a@dest.example> NOTIFY=NEVER").notify.never
    assert rcpt("TO:<a@dest.example>").notify == DEFAULT_NOTIFY
    assert rcpt("TO:<a@dest.example> ORCPT=utf-8;ø@dest.example", smtputf8=True).orcpt == "utf-8;ø@dest.example"


@pytest.mark.row("D15")
@pytest.mark.parametrize(
    "parameters",
    ["NOTIFY=NEVER,FAILURE", "NOTIFY=FAILURE,FAILURE", "NOTIFY=", "NOTIFY", "NOTIFY=SOON", "ORCPT", "ORCPT=a@dest.example",
     "ORCPT=rfc822;a+0Ab", "ORCPT=utf-8;\u00f8", "ORCPT=;x", "ORCPT=rfc822;" + "x" * 500],
)  # fmt: skip
def test_bad_parameters_of_rcpt(parameters: str) -> None:
    assert rcpt_code(f"TO:<a@dest.example> {parameters}") == "501 5.5.4"


def test_unknown_parameters_of_rcpt() -> None:
    assert rcpt_code("TO:<a@dest.example> SIZE=1") == "555 5.5.4"
