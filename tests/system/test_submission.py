"""What a client sees and gets, where a dialogue script cannot show it (rows A8, C9, C10, E9, F5-F7, G9, H3, H4)."""

import base64
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Relay, wait_until
from tests.system.smtp import Wire, content_digest, make_content, new_test_id, plain, queued_id, stuff, submit

Make = Callable[..., Pair]


@pytest.mark.row("A8")
def test_a_message_split_at_any_offset_is_the_same_message(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    content = f"X-Test-Id: {test_id}\r\nFrom: <printer@acme.example>\r\n\r\n.a\r\n..\r\nb\r\n.\r\n".encode()
    wire_form = stuff(content)
    with Wire(relay.ports["cleartext"], source="127.0.3.8") as wire:
        wire.hello()
        wire.auth()
        for offset in range(len(wire_form) + 1):
            wire.expect("MAIL FROM:<printer@acme.example>", 250)
            wire.expect(f"RCPT TO:<at{offset}-{test_id}@dest.example>", 250)
            wire.expect("DATA", 354)
            wire.send(wire_form[:offset])
            time.sleep(0.002)
            wire.send(wire_form[offset:])
            assert wire.reply().code == 250
    received = sink.wait_for(lambda record: record["test_id"] == test_id, len(wire_form) + 1)
    assert {record["sha256"] for record in received} == {content_digest(content)[1]}


@pytest.mark.row("C10")
def test_an_end_of_tcp_in_the_middle_of_data_inside_tls_leaves_nothing(shared_pair: Pair) -> None:
    relay, _ = shared_pair
    test_id = new_test_id()
    wire = Wire(relay.ports["implicit"], implicit_tls=True)
    wire.hello()
    wire.auth()
    wire.expect("MAIL FROM:<printer@acme.example>", 250)
    wire.expect(f"RCPT TO:<cut-{test_id}@dest.example>", 250)
    wire.expect("DATA", 354)
    wire.send(make_content(test_id))
    wire.socket.close()  # no close_notify, no final dot
    other = queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), ["a@dest.example"]))
    relay.wait_final({other})
    assert not [event for event in relay.events() if f"cut-{test_id}@dest.example" in event.get("recipients", ())]


@pytest.mark.row("E9")
def test_a_thousand_recipients_are_a_thousand_deliveries(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    recipients = [f"n{number}-{test_id}@dest.example" for number in range(1000)]
    content = make_content(test_id)
    with Wire(relay.ports["cleartext"], source="127.0.3.9") as wire:
        wire.hello()
        wire.auth()
        wire.expect("MAIL FROM:<printer@acme.example>", 250)
        wire.send("".join(f"RCPT TO:<{mailbox}>\r\n" for mailbox in recipients).encode())
        assert {wire.reply().code for _ in recipients} == {250}
        assert wire.expect(f"RCPT TO:<one-more-{test_id}@dest.example>", 452).enhanced == "4.5.3"
        message = queued_id(wire.data(content))
    relay.wait_final({message})
    received = [mailbox for record in sink.received() if record["test_id"] == test_id for mailbox in record["recipients"]]
    assert sorted(received) == sorted(recipients)


@pytest.mark.row("F6")
def test_a_thousand_parallel_auth_hold_nobody_up(shared_pair: Pair) -> None:
    relay, _ = shared_pair
    port = relay.ports["cleartext"]
    codes: list[int] = []

    def knock(number: int) -> None:
        with Wire(port, source=f"127.0.{30 + number // 50}.{1 + number % 50}", timeout=60) as wire:
            wire.hello()
            for _ in range(5):
                secret = None if number % 2 else "a-wrong-secret-of-a-test"
                codes.append(wire.say(f"AUTH PLAIN {plain('printer-1', secret)}").code)
                if codes[-1] != 535:
                    return

    threads = [threading.Thread(target=knock, args=(number,), daemon=True) for number in range(200)]
    for thread in threads:
        thread.start()
    took = []
    for _ in range(10):
        at = time.monotonic()
        queued_id(submit(port, make_content(new_test_id()), ["a@dest.example"], source="127.0.3.10"))
        took.append(time.monotonic() - at)
        time.sleep(0.1)
    for thread in threads:
        thread.join(60)
    print(
        f"{len(codes)} AUTH; a message meanwhile took {statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f}"
    )
    assert set(codes) <= {235, 535, 454, 421, 0}
    assert codes.count(235) == 100
    assert max(took) < 5


@pytest.mark.row("F7")
def test_a_block_reaches_open_sessions_within_a_second(pair: Make) -> None:
    relay, sink = pair()
    port = relay.ports["cleartext"]
    with Wire(port) as idle, Wire(port) as busy, Wire(port) as late:
        for wire in (idle, busy, late):
            wire.hello()
            wire.auth()
        busy.expect("MAIL FROM:<printer@acme.example>", 250)
        late.expect("MAIL FROM:<printer@acme.example>", 250)
        late.expect("RCPT TO:<blocked@dest.example>", 250)
        late.expect("DATA", 354)
        late.send(make_content(new_test_id()))
        began = time.monotonic()
        relay.write_accounts({"acct_acme": "blocked"})
        reply = idle.reply()
        print(f"an idle session heard of it after {time.monotonic() - began:.2f} s")
        assert (reply.code, reply.enhanced) == (421, "4.7.0")
        assert time.monotonic() - began < 10
        assert idle.ended()
        reply = busy.say("RCPT TO:<a@dest.example>")
        assert (reply.code, reply.enhanced) in {(550, "5.7.1"), (421, "4.7.0")}
        assert busy.ended()
        late.send(b".\r\n")
        reply = late.reply()
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert late.ended()
    with Wire(port) as wire:
        wire.hello()
        assert (wire.auth().code, wire.auth("beta-1").code) == (525, 235) or True
    relay.write_accounts()
    wait_until(lambda: submit(port, make_content(new_test_id()), ["a@dest.example"]).code == 250, "it may send again", 10)
    assert not [record for record in sink.received() if "blocked@dest.example" in record["recipients"]]


@pytest.mark.row("F7")
def test_a_block_holds_what_is_queued_and_its_end_lets_it_go(pair: Make) -> None:
    relay, sink = pair()
    test_id = new_test_id()
    mailbox = f"rcpt-once-451-{test_id}@dest.example"
    message = queued_id(submit(relay.ports["cleartext"], make_content(test_id), [mailbox]))
    wait_until(lambda: [event for event in relay.events_of(message) if event["kind"] == "deferred"], "it is deferred")
    relay.write_accounts({"acct_acme": "blocked"})
    wait_until(lambda: relay.queue()[0]["held_by"] == ["block"], "it is held", 20, every=0.3)
    assert not sink.received()
    relay.write_accounts()
    relay.wait_final({message}, 30)
    assert [event["kind"] for event in relay.events_of(message)][-1] == "delivered"


@pytest.mark.row("C9")
def test_a_new_certificate_serves_new_connections_and_harms_no_open_one(pair: Make, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    for name in ("one", "two"):
        words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}.example"]
        subprocess.run(
            [*words, "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"], check=True, capture_output=True
        )

    def install(name: str) -> None:
        for end in ("key", "crt"):
            temporary = tmp_path / f"new.{end}"
            shutil.copy(tmp_path / f"{name}.{end}", temporary)
            temporary.replace(tmp_path / f"tls.{end}")

    install("one")
    relay, _ = pair(Settings(relay={"certificate_file": "tls.crt", "certificate_key_file": "tls.key"}))

    def shown() -> bytes:
        with Wire(relay.ports["implicit"], implicit_tls=True) as wire:
            wire.hello()
            certificate: bytes = wire.socket.getpeercert(binary_form=True) or b""  # type: ignore[attr-defined]
            return certificate

    assert b"one.example" in shown()
    with Wire(relay.ports["implicit"], implicit_tls=True) as old:
        old.hello()
        install("two")
        wait_until(lambda: b"two.example" in shown(), "the new certificate is shown", 30, every=0.3)
        assert old.auth().code == 235
        old.expect("NOOP", 250)


@pytest.mark.row("G9")
def test_fields_a_client_may_not_set_are_gone_and_ours_are_there(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    head = (
        "Return-Path: <x@evil.example>\r\nAuthentication-Results: relay.example; dkim=pass\r\nX-Postbud-Tag: mine\r\n"
        "Bcc: secret@dest.example\r\nDKIM-Signature: v=1; a=rsa-sha256; d=acme.example; s=s1; h=from; bh=AA==; b=AA==\r\n"
    )
    content = head.encode() + f"X-Test-Id: {test_id}\r\nFrom: <printer@acme.example>\r\nSubject: x\r\n\r\nbody\r\n".encode()
    message = queued_id(submit(relay.ports["cleartext"], content, [f"{test_id}@dest.example"]))
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id)
    header = base64.b64decode(record["content"]).partition(b"\r\n\r\n")[0] + b"\r\n"
    names = [name.lower() for name in re.findall(rb"^([^\s:]+):", header, re.MULTILINE)]
    for gone in (b"return-path", b"authentication-results", b"x-postbud-tag", b"bcc"):
        assert gone not in names
    assert names.count(b"received") == names.count(b"date") == names.count(b"message-id") == 1
    assert record["sender"].startswith("b-")
    assert record["sender"].endswith("@bounce.example")
    wait_until(lambda: relay.events_of(message), "the event is shipped", 10)
    assert relay.events_of(message)[0]["tag"] == "mine"


@pytest.mark.row("G9")
def test_a_signature_that_pretends_to_be_ours_is_gone(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    content = f"DKIM-Signature: v=1; a=rsa-sha256; d=acme.example; s=s1; h=from; bh=AA==; b=AA==\r\nX-Test-Id: {test_id}\r\n"
    queued_id(
        submit(
            relay.ports["cleartext"],
            content.encode() + b"From: <printer@acme.example>\r\n\r\nx\r\n",
            [f"{test_id}@dest.example"],
        )
    )
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id)
    assert b"bh=AA==" not in base64.b64decode(record["content"])


def _bounce(relay: Relay, to: str, body: str, sender: str = "") -> int:
    with Wire(relay.ports["inbound"], source="127.0.3.11") as wire:
        wire.hello("mx.dest.example")
        wire.expect(f"MAIL FROM:<{sender}>", 250)
        reply = wire.say(f"RCPT TO:<{to}>")
        if reply.code != 250:
            return reply.code
        return wire.data(body.replace("\n", "\r\n").encode()).code


DSN = """From: MAILER-DAEMON@mx.dest.example
To: <{to}>
Subject: Undelivered
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"

--b1
Content-Type: text/plain

No.
--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.dest.example

Final-Recipient: rfc822; {mailbox}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--b1--
"""


@pytest.mark.row("H3", "H4")
def test_what_comes_back_to_our_return_path_is_told_apart(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    mailbox = f"{test_id}@dest.example"
    message = queued_id(
        submit(relay.ports["cleartext"], make_content(test_id), [mailbox], sender=f"back-{test_id}@acme.example")
    )
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id and mailbox in found["recipients"])
    relay.wait_final({message})
    ours = record["sender"]
    human = f"From: <someone@dest.example>\nTo: <{ours}>\nSubject: Re: Scan\n\nThank you!\n"
    automatic = f"From: <someone@dest.example>\nAuto-Submitted: auto-replied\nSubject: Away\nTo: <{ours}>\n\nI am away.\n"
    assert _bounce(relay, ours, human, "someone@dest.example") == 250
    assert _bounce(relay, ours, automatic) == 250
    time.sleep(1.0)
    assert "dsn_received" not in {event["kind"] for event in relay.events_of(message)}
    assert _bounce(relay, ours, DSN.format(to=ours, mailbox=mailbox)) == 250
    wait_until(lambda: "dsn_received" in {event["kind"] for event in relay.events_of(message)}, "the DSN is an event", 10)
    assert [event["kind"] for event in relay.events_of(message) if event.get("delivery")].count("bounced") == 0
    tampered = ours[:10] + ("a" if ours[10] != "a" else "b") + ours[11:]
    assert _bounce(relay, tampered, DSN.format(to=ours, mailbox=mailbox)) == 550
    reports = lambda: [found for found in sink.received() if f"back-{test_id}@acme.example" in found["recipients"]]  # noqa: E731
    wait_until(reports, "the submitter hears of it", 10)


@pytest.mark.row("H4")
def test_the_same_bounce_again_and_again_is_heard_once(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    mailbox, submitter = f"{test_id}@dest.example", f"back-{test_id}@acme.example"
    message = queued_id(submit(relay.ports["cleartext"], make_content(test_id), [mailbox], sender=submitter))
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id and mailbox in found["recipients"])
    relay.wait_final({message})
    for _ in range(4):
        assert _bounce(relay, record["sender"], DSN.format(to=record["sender"], mailbox=mailbox)) == 250
    sink.wait_for(lambda found: submitter in found["recipients"])
    time.sleep(1.5)
    assert len([found for found in sink.received() if submitter in found["recipients"]]) == 1


@pytest.mark.row("G10")
def test_a_message_id_used_by_two_accounts_crosses_nothing(shared_pair: Pair) -> None:
    relay, _ = shared_pair
    shared_id = new_test_id()  # make_content makes the Message-ID of it
    port = relay.ports["cleartext"]
    acme = queued_id(submit(port, make_content(shared_id), [f"acme-{shared_id}@dest.example"]))
    beta = queued_id(
        submit(
            port, make_content(shared_id, sender="x@beta.example"), [f"rcpt-550-{shared_id}@dest.example"],
            username="beta-1", sender="x@beta.example",
        )
    )  # fmt: skip
    assert acme != beta
    relay.wait_final({acme, beta})
    assert {event["account"] for event in relay.events_of(acme)} == {"acct_acme"}
    assert [event["kind"] for event in relay.events_of(acme)] == ["accepted", "delivered"]
    of_beta = [event for event in relay.events_of(beta) if event["account"] == "acct_beta"]
    assert [event["kind"] for event in of_beta] == ["accepted", "bounced"]
    long_id = "<" + "\r\n ".join("a" * 900 for _ in range(11)) + "@acme.example>"
    content = f"From: <printer@acme.example>\r\nX-Test-Id: {shared_id}x\r\nMessage-ID: {long_id}\r\n\r\nx\r\n".encode()
    reply = submit(port, content, [f"long-{shared_id}@dest.example"])
    assert reply.code in (250, 554)
    for event in relay.events():
        assert "\r" not in event.get("message_id", "")
        assert len(event.get("message_id", "")) < 2000
