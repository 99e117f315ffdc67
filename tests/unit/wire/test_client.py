"""The client's session: which reply answers what, what may not be said, and the transcript."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.outcome import Reply
from postbud.wire.client import TRANSCRIPT_OCTETS, Client, Stage, auth_steps
from postbud.wire.extensions import Extensions
from postbud.wire.reply import ReplyError


def greeted() -> Client:
    client = Client()
    assert client.receive(b"220 mx.example ESMTP\r\n")[0][0] is Stage.BANNER
    return client


def test_replies_answer_commands_in_order() -> None:
    client = greeted()
    assert client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n", Stage.MAIL, Stage.RCPT, Stage.DATA)
    assert client.awaited is Stage.MAIL
    answers = client.receive(b"250 ok\r\n550 no\r\n354 go\r\n")
    assert [(stage, reply.code) for stage, reply in answers] == [(Stage.MAIL, 250), (Stage.RCPT, 550), (Stage.DATA, 354)]
    assert client.awaited is None
    assert client.quiet


@pytest.mark.row("K4")
@pytest.mark.parametrize(
    ("stage", "octets"), [(Stage.DATA, b"250 ok\r\n"), (Stage.MAIL, b"354 go\r\n"), (Stage.END, b"354 more\r\n")]
)
def test_a_reply_of_the_wrong_kind_breaks_the_session(stage: Stage, octets: bytes) -> None:
    client = greeted()
    client.send(b"X\r\n", stage)
    assert client.receive(octets) == []
    assert client.broken is not None
    assert "cannot answer" in client.broken.why
    assert client.receive(b"250 ok\r\n") == []


@pytest.mark.row("K2")
def test_a_reply_that_nothing_asked_for_breaks_the_session() -> None:
    client = greeted()
    assert client.broken is None
    assert client.receive(b"250 believe me\r\n") == []
    assert client.broken is not None
    assert client.broken.why == "a reply came that nothing asked for"


@pytest.mark.row("K4", "38")
@pytest.mark.parametrize("nonsense", [b"250 again\r\n", b"\0\r\n", b"999 x\r\n"])
def test_an_answer_counts_whatever_nonsense_follows_it_in_the_same_segment(nonsense: bytes) -> None:
    client = greeted()
    client.send(b".\r\n", Stage.END)
    assert client.receive(b"250 2.0.0 taken\r\n" + nonsense) == [(Stage.END, Reply(250, ("taken",), "2.0.0"))]
    assert client.broken is not None


@pytest.mark.row("K2")
def test_nothing_is_sent_while_unread_octets_wait() -> None:
    client = greeted()
    assert client.receive(b"25") == []
    assert not client.quiet
    with pytest.raises(ReplyError, match="out of turn"):
        client.send(b"STARTTLS\r\n", Stage.STARTTLS)


@pytest.mark.row("46")
def test_421_may_come_at_any_time_and_closes_the_session() -> None:
    client = greeted()
    assert client.receive(b"421 4.3.2 going down\r\n") == []
    assert client.closing
    client = greeted()
    client.send(b"NOOP\r\n", Stage.RSET)
    assert client.receive(b"421 no\r\n")[0][1].code == 421
    assert client.closing


def test_the_transcript_shows_both_sides_and_hides_secrets() -> None:
    client = greeted()
    client.send(b"AUTH PLAIN c2VjcmV0\r\n", Stage.AUTH, shown="AUTH ***")
    client.receive(b"235-2.7.0 welcome\r\n235 2.7.0 in\r\n")
    client.begin_transaction()
    client.note("a remark")
    client.send(b"MAIL FROM:<>\r\nDATA\r\n", Stage.MAIL)
    assert client.transcript().split("\n") == [
        "S: 220 mx.example ESMTP",
        "-- AUTH ***",
        "S: 235-2.7.0 welcome",
        "S: 235 2.7.0 in",
        "-- a remark",
        "C: MAIL FROM:<>",
        "C: DATA",
    ]
    client.begin_transaction()
    assert "remark" not in client.transcript()


def test_a_long_transcript_is_cut_in_the_middle() -> None:
    client = greeted()
    for number in range(300):
        client.send(b"RCPT TO:<somebody-%d@dest.example>\r\n" % number, Stage.RCPT)
    transcript = client.transcript()
    assert len(transcript) <= TRANSCRIPT_OCTETS
    assert transcript.startswith("S: 220")
    assert "[... cut ...]" in transcript
    assert transcript.endswith("somebody-299@dest.example>")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_segments_make_no_difference_to_the_client(sizes: list[int]) -> None:
    octets = b"250 2.1.0 ok\r\n250-2.1.5 a\r\n250 2.1.5 b\r\n354 go\r\n"
    client, got, at, turn = greeted(), [], 0, 0
    client.send(b"x\r\n", Stage.MAIL, Stage.RCPT, Stage.DATA)
    while at < len(octets):
        size = sizes[turn % len(sizes)]
        got += client.receive(octets[at : at + size])
        at, turn = at + size, turn + 1
    assert [reply.code for _, reply in got] == [250, 250, 354]


def test_auth_takes_plain_before_login_and_knows_when_there_is_none() -> None:
    assert auth_steps(frozenset({"PLAIN", "LOGIN"}), "u", "p") == (b"AUTH PLAIN AHUAcA==\r\n",)
    assert auth_steps(frozenset({"LOGIN"}), "u", "p") == (b"AUTH LOGIN\r\n", b"dQ==\r\n", b"cA==\r\n")
    assert auth_steps(frozenset({"CRAM-MD5"}), "u", "p") is None


def test_extensions_are_read_from_the_lines_after_the_first() -> None:
    lines = (
        "PIPELINING", "size 1000", "8BITMIME", "AUTH PLAIN", "AUTH=LOGIN NTLM", "", "STARTTLS",
        "LIMITS RCPTMAX=5 MAILMAX=x RCPTDOMAINMAX=2 FOO=1",
    )  # fmt: skip
    offered = Extensions.parse(Reply(250, lines))
    assert not offered.pipelining
    assert offered.size_octets == 1000
    assert offered.auth == {"PLAIN", "LOGIN", "NTLM"}
    assert offered.limits == {"RCPTMAX": 5, "RCPTDOMAINMAX": 2}
    assert Extensions.parse(Reply(250, ("mx", "PIPELINING"))).pipelining


@pytest.mark.row("K5")
@pytest.mark.parametrize(
    "line", ["SIZE", "SIZE abc", "SIZE 0", "SIZE " + "9" * 30, "LIMITS RCPTMAX=0 MAILMAX=-1", "LIMITS RCPTMAX=99999999"]
)
def test_absurd_words_are_ignored(line: str) -> None:
    offered = Extensions.parse(Reply(250, ("mx", line)))
    assert offered.size_octets is None
    assert offered.limits == {}


def test_an_offer_can_be_made_smaller() -> None:
    offered = Extensions.parse(Reply(250, ("mx", "SIZE 10", "DSN")))
    assert offered.without("DSN") == Extensions(frozenset({"SIZE"}), 10)
    assert offered.without("SIZE").size_octets is None
