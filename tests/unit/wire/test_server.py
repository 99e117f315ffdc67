"""The order of commands, what is announced, and what a session does with nonsense."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.talk import LIMIT, NO, Talk, transaction

from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Why
from postbud.wire.events import Authenticate, Data, EndOfData, Mail, Rcpt, SecretExposed, StartTls, reply_line
from postbud.wire.server import ALLOWED, MAX_IDLE, MAX_REFUSED, MAX_UNKNOWN, State

PLAIN = b"AUTH PLAIN " + b64encode(b"\0u\0secret") + b"\r\n"
GREETED = "250 HELP"


def test_a_whole_session() -> None:
    talk = Talk()
    talk.wire.greet()
    assert talk.say(b"") == ["220"]
    assert talk.say(b"EHLO client.example\r\n") == [GREETED]
    transaction(talk)
    assert talk.wire.in_transaction
    assert talk.say(b"Subject: x\r\n\r\n..\r\n.\r\n") == ["250 2.0.0"]
    assert not talk.wire.in_transaction
    assert talk.said == b"250 2.0.0 Ok: queued as msg_1\r\n"
    assert talk.contents == [b"Subject: x\r\n\r\n.\r\n"]
    assert [type(event) for event in talk.events] == [Mail, Rcpt, Data, EndOfData]
    assert talk.say(b"QUIT\r\nNOOP\r\n") == ["221 2.0.0"]
    assert talk.wire.closed


def test_ehlo_announces_what_there_is_and_nothing_else() -> None:
    talk = Talk()
    talk.say(b"EHLO client.example\r\n")
    words = {line[4:] for line in talk.said.decode().split("\r\n")[1:-1]}
    common = {"PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "LIMITS RCPTMAX=100", "HELP"}
    assert words == common | {"STARTTLS", "AUTH PLAIN LOGIN"}
    talk.say(b"STARTTLS\r\n")
    talk.wire.tls_started()
    talk.say(b"EHLO client.example\r\n")
    assert {line[4:] for line in talk.said.decode().split("\r\n")[1:-1]} == common | {"REQUIRETLS", "AUTH PLAIN LOGIN"}
    bare = Talk(auth=False, starttls=False)
    bare.say(b"EHLO client.example\r\n")
    assert {line[4:] for line in bare.said.decode().split("\r\n")[1:-1]} == common
    assert bare.say(b"STARTTLS\r\nAUTH PLAIN\r\n") == ["502 5.5.1", "502 5.5.1"]


def test_helo_announces_nothing() -> None:
    talk = Talk()
    talk.say(b"HELO client.example\r\n")
    assert talk.said == b"250 relay.example\r\n"
    assert talk.wire.protocol(smtputf8=False) == "SMTP"
    assert talk.say(b"MAIL FROM:<> SIZE=1\r\n") == ["555 5.5.4"]


def test_the_with_word_tells_tls_auth_and_utf_8() -> None:
    talk = Talk().hello()
    assert talk.wire.protocol(smtputf8=False) == "ESMTP"
    talk.say(PLAIN)
    assert talk.wire.protocol(smtputf8=True) == "UTF8SMTPA"
    inside = Talk(tls=True).hello()
    inside.say(PLAIN)
    assert inside.wire.protocol(smtputf8=False) == "ESMTPSA"


@pytest.mark.row("D10")
def test_commands_out_of_order_are_refused() -> None:
    talk = Talk()
    assert talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\nDATA\r\nAUTH PLAIN\r\nSTARTTLS\r\n") == ["503 5.5.1"] * 5
    talk.hello()
    assert talk.say(b"RCPT TO:<a@dest.example>\r\nDATA\r\n") == ["503 5.5.1"] * 2
    assert talk.say(b"MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n") == ["250 2.1.0", "503 5.5.1", "503 5.5.1"]
    assert talk.say(b"RSET\r\nRCPT TO:<a@dest.example>\r\n") == ["250 2.0.0", "503 5.5.1"]
    assert talk.say(b"MAIL FROM:<>\r\nEHLO again.example\r\nRCPT TO:<a@dest.example>\r\n") == [
        "250 2.1.0",
        GREETED,
        "503 5.5.1",
    ]


@pytest.mark.row("D11")
def test_after_content_was_refused_a_new_mail_is_needed() -> None:
    talk = Talk(refuses=lambda event: isinstance(event, EndOfData)).hello()
    transaction(talk)
    assert talk.say(b"x\r\n.\r\nRCPT TO:<a@dest.example>\r\nDATA\r\n") == ["550 5.7.1", "503 5.5.1", "503 5.5.1"]


def test_a_refused_mail_rcpt_or_data_changes_nothing() -> None:
    talk = Talk(refuses=lambda event: isinstance(event, Mail)).hello()
    assert talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\n") == ["550 5.7.1", "503 5.5.1"]
    talk = Talk(refuses=lambda event: isinstance(event, Rcpt)).hello()
    assert talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\nDATA\r\n") == ["250 2.1.0", "550 5.7.1", "503 5.5.1"]
    talk = Talk(refuses=lambda event: isinstance(event, Data)).hello()
    assert talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\nDATA\r\nDATA\r\n")[2:] == ["550 5.7.1", "550 5.7.1"]


def test_refusals_for_now_do_not_make_a_prober() -> None:
    talk = Talk(refuses=lambda event: isinstance(event, Rcpt), no=b"452 4.5.3 Too many\r\n").hello()
    talk.say(b"MAIL FROM:<>\r\n")
    assert talk.say(b"RCPT TO:<a@dest.example>\r\n" * 200) == ["452 4.5.3"] * 200


def test_a_recipient_refused_after_another_keeps_the_first() -> None:
    talk = Talk(refuses=lambda event: isinstance(event, Rcpt) and event.recipient.mailbox.local_part == "bad").hello()
    said = talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\nRCPT TO:<bad@dest.example>\r\nDATA\r\n")
    assert said == ["250 2.1.0", "250 2.1.5", "550 5.7.1", "354"]


@pytest.mark.row("A1", "A5", "A10")
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"x\n.\nMAIL FROM:<>\r\n.\r\n", "550 5.5.2"),
        (b"x\0\r\n.\r\n", "554 5.6.0"),
        (b"x" * LIMIT + b"\r\n\n.\nMAIL FROM:<>\r\n.\r\n", "552 5.3.4"),
    ],
)
def test_spoiled_content_is_refused_once_at_its_true_end_and_the_session_closed(content: bytes, code: str) -> None:
    talk = transaction(Talk().hello())
    assert talk.say(content[:-3]) == []
    assert talk.wire.content_flaw is not None
    assert talk.say(content[-3:] + b"NOOP\r\n") == [code]
    assert talk.wire.closed
    assert talk.wire.content_flaw is None


@pytest.mark.row("A7")
def test_a_credential_may_have_its_line_ends_normalised() -> None:
    talk = transaction(Talk(normalise=True).hello())
    assert talk.say(b"a\n.\nb\r\n.\r\n") == ["250 2.0.0"]
    assert talk.contents == [b"a\r\n.\r\nb\r\n"]


def test_empty_content_is_content() -> None:
    talk = transaction(Talk().hello())
    assert talk.say(b".\r\n") == ["250 2.0.0"]
    assert talk.contents == [b""]


@pytest.mark.row("B1")
def test_bdat_closes_the_session_before_its_octets_are_run() -> None:
    talk = Talk().hello()
    assert talk.say(b"BDAT 20\r\nRSET\r\nMAIL FROM:<>\r\n") == ["503 5.5.1"]
    assert talk.wire.closed


@pytest.mark.row("C1")
def test_what_comes_in_clear_behind_starttls_never_reaches_the_session_inside() -> None:
    talk = Talk().hello()
    assert talk.say(b"STARTTLS\r\nNOOP\r\n") == ["554 5.5.0"]
    assert talk.wire.closed
    late = Talk().hello()
    assert late.say(b"STARTTLS\r\n") == ["220 2.0.0"]
    assert late.say(b"NOOP\r\n") == []
    assert late.wire.closed
    quiet = Talk().hello()
    quiet.say(b"STARTTLS\r\n")
    assert quiet.say(b"") == []
    assert not quiet.wire.closed


@pytest.mark.row("C2")
def test_nothing_said_before_starttls_is_known_after_it() -> None:
    talk = Talk().hello()
    talk.say(PLAIN)
    assert talk.say(b"STARTTLS\r\n") == ["220 2.0.0"]
    talk.wire.tls_started()
    assert (talk.wire.helo, talk.wire.authenticated, talk.wire.tls) == ("", False, True)
    assert talk.say(b"MAIL FROM:<>\r\n") == ["503 5.5.1"]


@pytest.mark.row("C3")
def test_starttls_takes_no_argument_comes_once_and_not_within_a_transaction() -> None:
    talk = Talk().hello()
    assert talk.say(b"STARTTLS x\r\n") == ["501 5.5.4"]
    assert talk.say(b"MAIL FROM:<>\r\nSTARTTLS\r\nRSET\r\n") == ["250 2.1.0", "503 5.5.1", "250 2.0.0"]
    assert Talk(tls=True).hello().say(b"STARTTLS\r\n") == ["503 5.5.1"]
    assert Talk(refuses=lambda event: isinstance(event, StartTls)).hello().say(b"STARTTLS\r\nNOOP\r\n"[:10]) == ["550 5.7.1"]


@pytest.mark.row("C5")
@pytest.mark.parametrize("piece", [0, 1])
def test_a_tls_hello_on_a_cleartext_port_is_told_and_closed(piece: int) -> None:
    talk = Talk()
    assert talk.say(b"\x16\x03\x01\x02\n\x01\0\r\n", piece=piece) == ["500 5.5.2"]
    assert talk.wire.closed


@pytest.mark.row("C7")
def test_auth_in_clear_is_refused_and_an_exposed_secret_reported_without_it() -> None:
    talk = Talk(auth_without_tls=False)
    talk.say(b"EHLO client.example\r\n")
    assert b"AUTH" not in talk.said
    assert talk.say(PLAIN) == ["538 5.7.11"]
    assert talk.events == [SecretExposed("u")]
    assert talk.say(b"AUTH PLAIN\r\nAUTH LOGIN dQ==\r\nAUTH PLAIN !\r\n") == ["538 5.7.11"] * 3
    assert talk.events == [SecretExposed("u")]


def test_auth_in_several_steps() -> None:
    talk = Talk().hello()
    assert talk.say(b"AUTH LOGIN\r\n") == ["334"]
    assert talk.say(b64encode(b"u") + b"\r\n") == ["334"]
    assert talk.say(b64encode(b"s") + b"\r\n") == ["235 2.7.0"]
    (event,) = talk.events
    assert isinstance(event, Authenticate)
    assert (event.credentials.username, event.credentials.secret) == ("u", b"s")
    assert Talk().hello().say(b"auth login " + b64encode(b"u") + b"\r\n") == ["334"]
    assert Talk().hello().say(b"AUTH PLAIN\r\n") == ["334"]


@pytest.mark.row("F1", "F3")
def test_auth_that_cannot_be() -> None:
    talk = Talk().hello()
    assert talk.say(b"AUTH\r\nAUTH CRAM-MD5\r\nAUTH NTLM x\r\n") == ["501 5.5.4", "504 5.5.4", "504 5.5.4"]
    assert talk.say(b"AUTH PLAIN !!!\r\nAUTH PLAIN\r\n*\r\n") == ["501 5.5.2", "334", "501 5.7.0"]
    assert talk.say(b"AUTH PLAIN\r\n" + b"A" * 12_287 + b"\r\n") == ["334", "500 5.5.6"]
    assert talk.say(b"AUTH PLAIN " + b"A" * 12_289 + b"\r\n") == ["500 5.5.6"]
    assert talk.say(b"AUTH PLAIN " + b"A" * 4_000 + b"\r\n") == ["501 5.5.2"]
    assert talk.say(b"MAIL FROM:<>\r\n" + PLAIN + b"RSET\r\n") == ["250 2.1.0", "503 5.5.1", "250 2.0.0"]
    assert talk.say(PLAIN + PLAIN) == ["235 2.7.0", "503 5.5.1"]
    refused = Talk(refuses=lambda event: isinstance(event, Authenticate)).hello()
    assert refused.say(PLAIN) == ["550 5.7.1"]
    assert not refused.wire.authenticated


def test_a_bare_lf_within_auth_ends_the_exchange() -> None:
    talk = Talk().hello()
    assert talk.say(b"AUTH PLAIN\r\nxx\n\r\nNOOP\r\n") == ["334", "500 5.5.2", "250 2.0.0"]


@pytest.mark.row("D1", "D5")
def test_lines_have_a_limit() -> None:
    talk = Talk().hello()
    assert talk.say(b"NOOP " + b"x" * 2_041 + b"\r\n") == ["250 2.0.0"]
    assert talk.say(b"NOOP " + b"x" * 2_042 + b"\r\n") == ["500 5.5.2"]
    assert talk.say(b"EHLO " + b"x" * 2_042 + b"\r\n") == ["501 5.5.4"]
    assert talk.say(b"x" * 65_536) == ["421 4.7.0"]
    assert talk.wire.closed
    for verb in (b"EHLO", b"helo"):
        talk = Talk()
        assert talk.say(verb + b" " + b"x" * 1_000_000, piece=9_000) == ["501 5.5.4"]
        assert talk.wire.closed


@pytest.mark.row("D2")
def test_controls_and_bare_line_feeds_close_after_three() -> None:
    talk = Talk().hello()
    assert talk.say(b"NOOP \0\r\nNO\x1bOP\r\nEHLO \x07x\r\nNOOP\r\n") == ["500 5.5.2", "500 5.5.2", "501 5.5.4"]
    assert talk.wire.closed
    talk = Talk()
    assert talk.say(b"EHLO a.example\nNOOP\nNOOP\nNOOP\n") == ["500 5.5.2"] * 3
    assert talk.wire.closed


@pytest.mark.row("E3")
def test_controls_in_a_quoted_local_part_are_a_bad_address() -> None:
    talk = Talk().hello()
    assert talk.say(b'MAIL FROM:<"a\tb"@acme.example>\r\nMAIL FROM:<>\r\n') == ["501 5.1.7", "250 2.1.0"]
    assert talk.say(b'RCPT TO:<"a\0b"@dest.example>\r\nRCPT TO:<a\tb@dest.example>\r\n') == ["501 5.1.3", "500 5.5.2"]


@pytest.mark.row("D3")
@pytest.mark.parametrize("verb", [b"EHLO", b"HELO"])
def test_a_strict_session_wants_its_greeting_waited_for(verb: bytes) -> None:
    talk = Talk(strict_greeting=True)
    assert talk.say(verb + b" a.example\r\nMAIL FROM:<>\r\n") == ["554 5.5.0"]
    assert talk.wire.closed
    talk = Talk(strict_greeting=True).hello()
    assert talk.say(b"EHLO a.example\r\nMAIL FROM:<>\r\n") == [GREETED, "250 2.1.0"]


@pytest.mark.row("D4", "D8")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"GET / HTTP/1.1", "421 5.7.0"),
        (b"POST /x HTTP/1.1", "421 5.7.0"),
        (b"CONNECT a:25 HTTP/1.1", "421 5.7.0"),
        (b"XCLIENT ADDR=192.0.2.1", "550 5.7.1"),
        (b"XFORWARD ADDR=192.0.2.1", "550 5.7.1"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25", "550 5.7.1"),
    ],
)
def test_other_protocols_close(line: bytes, code: str) -> None:
    talk = Talk()
    assert talk.say(line + b"\r\nHost: x\r\nNOOP\r\n") == [code]
    assert talk.wire.closed


@pytest.mark.row("D6")
def test_unknown_commands_close_at_the_twentieth() -> None:
    talk = Talk().hello()
    assert talk.say(b"FOO\r\n" * 1_000) == ["500 5.5.2"] * (MAX_UNKNOWN - 1) + ["421 4.7.0"]
    assert talk.wire.closed


@pytest.mark.row("D6")
@pytest.mark.parametrize(
    "line", [b"NOOP x\r\n", b"RSET\r\n", b"VRFY a\r\n", b"HELP\r\n", b"EHLO a.example\r\n", b"HELO a.example\r\n"]
)
def test_idle_talk_has_an_end_that_a_message_puts_off(line: bytes) -> None:
    talk = Talk().hello()
    assert len(talk.say(line * (MAX_IDLE - 1))) == MAX_IDLE - 1
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\nDATA\r\n")
    talk.say(b"x\r\n.\r\n")
    said = talk.say(line * (MAX_IDLE + 5))
    assert len(said) == MAX_IDLE + 1
    assert said[-1] == "421 4.7.0"
    assert talk.wire.closed


@pytest.mark.row("H8")
def test_a_prober_is_sent_away() -> None:
    talk = Talk(refuses=lambda event: isinstance(event, Rcpt)).hello()
    talk.say(b"MAIL FROM:<>\r\n")
    said = talk.say(b"RCPT TO:<a@dest.example>\r\n" * 10_000)
    assert said == ["550 5.7.1"] * MAX_REFUSED + ["421 4.7.0"]
    assert talk.wire.closed


@pytest.mark.row("D7")
def test_nobody_learns_who_exists() -> None:
    talk = Talk().hello()
    assert talk.say(b"VRFY root\r\nVRFY\r\nEXPN all\r\nETRN x\r\nTURN\r\n") == ["252 2.1.5", "501 5.5.4"] + ["502 5.5.1"] * 3


def test_commands_without_arguments_take_none() -> None:
    talk = Talk().hello()
    assert talk.say(b"RSET x\r\nQUIT x\r\nHELP x\r\nRSET  \r\n") == ["501 5.5.4", "501 5.5.4", "214 2.0.0", "250 2.0.0"]
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a@dest.example>\r\n")
    assert talk.say(b"DATA x\r\n") == ["501 5.5.4"]


def test_rset_before_ehlo_is_harmless() -> None:
    talk = Talk()
    assert talk.say(b"RSET\r\nNOOP\r\nMAIL FROM:<>\r\n") == ["250 2.0.0", "250 2.0.0", "503 5.5.1"]


def test_the_application_may_end_a_session_at_any_point() -> None:
    talk = transaction(Talk().hello())
    talk.wire.terminate(b"421 4.3.2 Bye\r\n")
    assert talk.wire.take() == b"421 4.3.2 Bye\r\n"
    assert talk.wire.take() == b""
    assert talk.wire.closed
    refusing = Talk().hello()
    refusing.wire.feed(b"MAIL FROM:<>\r\nNOOP\r\n")
    assert isinstance(refusing.wire.next_event(), Mail)
    assert refusing.wire.next_event() is None
    refusing.wire.refuse(NO, close=True)
    assert refusing.wire.unread == 6
    assert (refusing.wire.take(), refusing.wire.closed) == (NO, True)


def test_a_reply_is_one_line_of_printable_ascii_within_512_octets() -> None:
    line = reply_line(550, "5.7.1", "søren\r\n250 x" + "y" * 600)
    assert len(line) == 512
    assert line.startswith(b"550 5.7.1 s?ren??250 xyyy")
    assert line.endswith(b"y\r\n")


def test_every_state_in_which_commands_are_read_has_its_row_in_the_table() -> None:
    assert set(ALLOWED) == set(State) - {State.SASL, State.CONTENT, State.TLS, State.CLOSED}


SPEECH = st.lists(
    st.sampled_from(
        [
            b"EHLO a.example\r\n", b"HELO a\r\n", b"MAIL FROM:<a@acme.example>\r\n", b"RCPT TO:<b@dest.example>\r\n",
            b"RCPT TO:<bad@dest.example>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\n.x\r\n", b".\r\n", b"\r\n.\r\n", b"RSET\r\n",
            b"NOOP\r\n",
            b"AUTH PLAIN\r\n", b"AUTH LOGIN dQ==\r\n", b64encode(b"\0u\0s") + b"\r\n", b"*\r\n", b"VRFY x\r\n", b"FOO\r\n",
            b"x\n", b"\0", b"\r", b".", b"QUIT\r\n", b"y" * 700 + b"\r\n", b'RCPT TO:<"a\nb"@x.example>\r\n', b"BDAT 3\r\n",
            PLAIN,
        ]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@pytest.mark.row("A8")
@given(SPEECH, st.integers(1, 17))
def test_segments_make_no_difference_to_events_contents_and_replies(speech: bytes, piece: int) -> None:
    outcomes = []
    for size in (0, piece, 1):
        talk = Talk(refuses=lambda event: isinstance(event, Rcpt) and event.recipient.mailbox == Mailbox("bad", "dest.example"))
        talk.say(speech, piece=size)
        outcomes.append((talk.events, talk.contents, talk.said, talk.wire.state))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_end_of_data_tells_the_flaw() -> None:
    talk = transaction(Talk().hello())
    talk.say(b"\n.\r\n\r\n.\r\n")
    assert talk.events[-1] == EndOfData(Why.BAD_LINE_ENDS)
