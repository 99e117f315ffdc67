"""Transactions over real sockets: what is kept is what was sent, and nothing else ever is."""

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal, Why
from tests.system.recording_gate import Server, serving, sign_in, until
from tests.system.smtp import Wire, stuff

CONTENT = b"From: a@acme.example\r\nSubject: x\r\n\r\n.dot first\r\n..\r\n.\r\nend\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as one:
        yield one


def envelope(wire: Wire) -> None:
    wire.expect("MAIL FROM:<a@acme.example>", 250)
    wire.expect("RCPT TO:<b@dest.example>", 250)


@pytest.mark.row("A8", "A9")
def test_content_arrives_octet_for_octet_however_it_is_cut(server: Server) -> None:
    wire = server.ready()
    for cut in range(1, len(CONTENT), 3):
        envelope(wire)
        wire.expect("DATA", 354)
        wired = stuff(CONTENT)
        wire.send(wired[:cut])
        time.sleep(0.001)
        wire.send(wired[cut:])
        reply = wire.reply()
        assert (reply.code, reply.text) == (250, f"2.0.0 Ok: queued as msg_{len(server.gate.kept)}")
    assert {kept.octets for kept in server.gate.kept} == {CONTENT}
    kept = server.gate.kept[0]
    assert (kept.client.helo, kept.client.protocol, kept.client.tls) == ("client.example", "ESMTPA", None)
    assert kept.identity is not None
    assert kept.identity.credential == "crd_printer"


def test_large_content_goes_through_files_and_leaves_none_when_refused(server: Server) -> None:
    body = b"x" * 998 + b"\r\n"
    content = CONTENT + body * 900
    wire = server.ready()
    envelope(wire)
    assert wire.data(content).code == 250
    assert server.gate.kept[0].octets == content
    server.gate.accept_refusal = Refusal(Why.POLICY, "Not this")
    envelope(wire)
    assert wire.data(content).enhanced == "5.7.1"
    until(lambda: len(list((server.folder / "content" / "incoming").iterdir())) == 1)  # the first one, which nobody moved
    assert server.gate.store.in_memory_octets == 0


def test_pipelined_commands_are_answered_in_order(server: Server) -> None:
    wire = server.ready()
    wire.send(b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<nobody@dest.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n")
    assert [wire.reply().code for _ in range(4)] == [250, 550, 250, 354]
    wire.send(stuff(CONTENT) + b"MAIL FROM:<a@acme.example>\r\nNOOP\r\nQUIT\r\n")
    assert [wire.reply().code for _ in range(4)] == [250, 250, 250, 221]
    assert wire.ended()


@pytest.mark.row("E9")
def test_too_many_recipients_keep_the_first_and_twice_the_same_is_one(server: Server) -> None:
    server.gate.recipients_limit = 3
    wire = server.ready()
    wire.expect("MAIL FROM:<a@acme.example>", 250)
    for _ in range(10):
        wire.expect("RCPT TO:<a@dest.example>", 250)
    wire.expect("RCPT TO:<b@dest.example>", 250)
    wire.expect("RCPT TO:<postmaster>", 250)
    assert wire.say("RCPT TO:<d@dest.example>").enhanced == "4.5.3"
    wire.expect("RCPT TO:<b@dest.example>", 250)
    assert wire.data(CONTENT).code == 250
    mailboxes = [recipient.mailbox for recipient in server.gate.kept[0].envelope.recipients]
    wanted = [("a", "dest.example"), ("b", "dest.example"), ("postmaster", "relay.example")]
    assert mailboxes == [Mailbox(*parts) for parts in wanted]


@pytest.mark.row("A1", "A7", "A10", "D14")
@pytest.mark.parametrize(
    ("content", "enhanced"),
    [
        (b"x\n.\nMAIL FROM:<smuggled@acme.example>\r\nRCPT TO:<c@dest.example>\r\nDATA\r\nx\r\n.\r\n", "5.5.2"),
        (b"x\0y\r\n.\r\n", "5.6.0"),
        (b"x" * 998 + b"\r\n" + (b"y" * 998 + b"\r\n") * 3_000 + b"\n.\nMAIL FROM:<smuggled@acme.example>\r\n.\r\n", "5.3.4"),
    ],
)
def test_spoiled_content_is_refused_and_thrown_away(server: Server, content: bytes, enhanced: str) -> None:
    wire = server.ready()
    wire.expect("MAIL FROM:<a@acme.example> SIZE=10", 250)
    wire.expect("RCPT TO:<b@dest.example>", 250)
    wire.expect("DATA", 354)
    wire.send(b"Subject: x\r\n\r\n" + content + b"NOOP\r\n")
    assert wire.reply().enhanced == enhanced
    assert wire.reply().code == 0
    assert not server.gate.kept
    until(lambda: not list((server.folder / "content" / "incoming").iterdir()))
    assert server.gate.store.in_memory_octets == 0


@pytest.mark.row("A7")
def test_only_the_credential_that_asked_for_it_is_normalised(server: Server) -> None:
    wire = server.ready("fax")
    envelope(wire)
    wire.expect("DATA", 354)
    wire.send(b"Subject: x\n\na\n.\nb\n\r\n.\r\n")
    assert wire.reply().code == 250
    assert server.gate.kept[0].octets == b"Subject: x\r\n\r\na\r\n.\r\nb\r\n\r\n"


@pytest.mark.row("D11")
def test_after_a_refused_message_a_new_mail_is_needed(server: Server) -> None:
    server.gate.accept_refusal = Refusal(Why.POLICY, "Not this")
    wire = server.ready()
    envelope(wire)
    assert wire.data(CONTENT).enhanced == "5.7.1"
    wire.expect("RCPT TO:<b@dest.example>", 503)
    wire.expect("DATA", 503)


@pytest.mark.row("D17", "C10")
def test_who_goes_away_leaves_nothing_behind(server: Server) -> None:
    steps = [
        b"",
        b"EHLO a.example\r\n",
        b"MAIL FROM:<a@acme.example>\r\n",
        b"RCPT TO:<b@dest.example>\r\n",
        b"DATA\r\n",
        stuff(CONTENT)[:-5],
    ]
    for reset in (True, False):
        for count in range(len(steps)):
            wire = server.client()
            wire.hello()
            sign_in(wire)
            for step in steps[1 : count + 1]:
                wire.send(step)
            time.sleep(0.02)
            if reset:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.socket.close()
    until(lambda: len(server.sessions) == 0)
    assert not server.gate.kept
    assert server.gate.opened >= 2
    assert server.gate.store.in_memory_octets == 0
    assert not server.faults()
    wire = server.ready()
    wire.send(b"QUIT\r\nQUIT\r\nMAIL FROM:<a@acme.example>\r\n")
    assert (wire.reply().code, wire.reply().code) == (221, 0)


@pytest.mark.row("C10")
def test_tcp_end_without_tls_end_within_content_queues_nothing(server: Server) -> None:
    wire = server.client()
    wire.hello()
    wire.starttls()
    wire.expect("EHLO client.example", 250)
    sign_in(wire)
    envelope(wire)
    wire.expect("DATA", 354)
    wire.send(stuff(CONTENT)[:-5])
    raw = socket.socket(fileno=wire.socket.detach())
    raw.shutdown(socket.SHUT_WR)
    until(lambda: len(server.sessions) == 0)
    raw.close()
    assert not server.gate.kept
    assert server.gate.store.in_memory_octets == 0


def test_a_bug_in_the_gate_is_logged_and_the_peer_hears_451(server: Server) -> None:
    wire = server.ready()
    reply = wire.say("MAIL FROM:<bug@acme.example>")
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    assert "bug" not in reply.text
    server.gate.accept_refusal = RuntimeError("another bug")
    envelope(wire)
    assert wire.data(CONTENT).code == 451
    server.gate.accept_refusal = None
    envelope(wire)
    assert wire.data(CONTENT).code == 250
    assert [event["event"] for event in server.faults()] == ["session_fault"] * 2
    assert server.counters.faults == 2


def test_what_is_asked_before_half_closing_is_answered(server: Server) -> None:
    wire = server.ready()
    server.call(server.gate.gone.clear)
    envelope(wire)
    wire.expect("DATA", 354)
    wire.send(stuff(CONTENT))
    wire.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    server.call(server.gate.gone.set)
    assert wire.reply().code == 250
    assert wire.ended()


def test_pipelining_behind_a_message_that_takes_long_is_bounded(server: Server) -> None:
    wire = server.ready()
    server.call(server.gate.gone.clear)
    envelope(wire)
    wire.expect("DATA", 354)
    wire.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        wire.send(stuff(CONTENT) + b"MAIL FROM:<a@acme.example>\r\nRSET\r\n" * 1_000_000)
    wire.socket.settimeout(20.0)
    server.call(server.gate.gone.set)
    assert wire.reply().code == 250


def test_a_peer_that_does_not_read_is_not_read(server: Server) -> None:
    wire = server.ready()
    wire.expect("MAIL FROM:<a@acme.example>", 250)
    wire.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        wire.send(b"RCPT TO:<a@dest.example>\r\n" * 3_000_000)


@pytest.mark.row("F7")
def test_status_is_asked_at_every_step_and_for_who_is_idle(server: Server) -> None:
    idle, busy = server.ready(), server.ready()
    envelope(busy)
    server.gate.status = Refusal(Why.BLOCKED, "Account is blocked", close=True)
    server.call(server.sessions.recheck)
    reply = idle.reply()
    assert (reply.code, reply.enhanced) == (421, "4.7.0")
    assert idle.reply().code == 0
    assert busy.say("RCPT TO:<c@dest.example>").code == 550
    assert busy.reply().code == 0
    for point in ("MAIL", "end"):
        server.gate.status = None
        wire = server.ready()
        if point == "end":
            envelope(wire)
            wire.expect("DATA", 354)
            wire.send(b"From: a@acme.example\r\n\r\nHello\r\n")  # no line of one dot: nothing ends it before the block
            server.gate.status = Refusal(Why.BLOCKED, "Account is blocked", close=True)
            wire.send(b".\r\n")
            assert wire.reply().code == 550
        else:
            server.gate.status = Refusal(Why.PAUSED, "Paused")
            assert wire.say("MAIL FROM:<>").code == 450
    assert not server.gate.kept


@pytest.mark.row("H1")
@pytest.mark.parametrize(
    "path",
    [
        "<victim@other.example>", "<victim%other.example@bounce.example.evil.example>", "<victim>", "victim@other.example",
        '<"victim@other.example"@other.example>', "<other.example!victim>", "<victim@[127.0.0.1]>",
        "<@bounce.example:victim@other.example>",
        "<victim@localhost>", "<victim@other.example@bounce.example>", '<"victim%other.example">', "<>",
    ],
)  # fmt: skip
def test_nobody_relays_without_an_identity(tmp_path: Path, path: str) -> None:
    with serving(tmp_path, requires_auth=False, banner_delay_seconds=0.0) as server, Wire(server.ports[0]) as wire:
        wire.hello()
        assert wire.say("AUTH PLAIN AAAA").code == 502
        wire.expect("MAIL FROM:<spam@evil.example>", 250)
        assert wire.say(f"RCPT TO:{path}").code in {501, 550}
        wire.expect("RCPT TO:<b-token@bounce.example>", 250)
        assert wire.data(CONTENT).code == 250


def test_submission_without_an_identity_hears_530(server: Server) -> None:
    with server.client() as wire:
        wire.hello()
        reply = wire.say("MAIL FROM:<a@acme.example>")
        assert (reply.code, reply.enhanced) == (530, "5.7.0")


def test_a_device_may_be_known_by_its_address_where_the_listener_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, ip_credentials=True) as server:
        server.gate.network = "127.0.0.1"
        with server.client() as wire:
            wire.hello()
            envelope(wire)
            assert wire.data(CONTENT).code == 250
        kept = server.gate.kept[0]
        assert kept.identity is not None
        assert kept.identity.credential == "crd_network"
        assert kept.client.protocol == "ESMTP"


@pytest.mark.row("C2")
def test_over_tls_the_session_begins_anew_and_trace_words_tell_it(server: Server) -> None:
    with server.client() as wire:
        wire.hello()
        sign_in(wire)
        wire.starttls()
        assert isinstance(wire.socket, ssl.SSLSocket)
        wire.expect("MAIL FROM:<a@acme.example>", 503)
        wire.expect("EHLO inside.example", 250)
        wire.expect("MAIL FROM:<a@acme.example>", 530)
        sign_in(wire)
        wire.expect("MAIL FROM:<a@acme.example> REQUIRETLS", 250)
        wire.expect("RCPT TO:<b@dest.example>", 250)
        assert wire.data(CONTENT * 3_000).code == 250
    client = server.gate.kept[0].client
    assert (client.helo, client.protocol) == ("inside.example", "ESMTPSA")
    assert client.tls is not None
    assert client.tls.startswith("TLSv1.3 ")
