"""Next hops that misbehave, seen from the outside: events, receipts, DSNs (rows 34-38, 41, 46, A12)."""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Relay
from tests.system.smtp import make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]


def send(relay: Relay, recipients: list[str], content: bytes | None = None, **more: Any) -> str:
    return queued_id(submit(relay.ports["cleartext"], content or make_content(new_test_id()), recipients, **more))


def kinds(relay: Relay, message: str, mailbox: str) -> list[str]:
    deliveries = next(
        dict(zip(event["recipients"], event["deliveries"], strict=True))
        for event in relay.events_of(message)
        if event["kind"] == "accepted"
    )
    return [event["kind"] for event in relay.events_of(message) if event.get("delivery") == deliveries[mailbox]]


@pytest.mark.row("34")
@pytest.mark.parametrize("stage", ["rcpt-once-451", "rcpt-once-450", "dot-once-451", "dot-once-421"])
def test_a_4yz_defers_and_the_next_attempt_delivers(shared_pair: Pair, stage: str) -> None:
    relay, _ = shared_pair
    mailbox = f"{stage}-{new_test_id()}@dest.example"
    message = send(relay, [mailbox])
    relay.wait_final({message})
    assert kinds(relay, message, mailbox) == ["deferred", "delivered"]


@pytest.mark.row("35")
@pytest.mark.parametrize("stage", ["rcpt-550", "rcpt-553", "dot-554", "dot-552", "rcpt-599"])
def test_a_5yz_bounces_with_one_dsn(shared_pair: Pair, stage: str) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    mailbox = f"{stage}-{test_id}@dest.example"
    content = make_content(test_id)
    message = send(relay, [mailbox], content, sender=f"sender-{test_id}@acme.example")
    relay.wait_final({message})
    assert kinds(relay, message, mailbox) == ["bounced"]
    (dsn,) = sink.wait_for(lambda record: f"sender-{test_id}@acme.example" in record["recipients"])
    report = base64.b64decode(dsn["content"]).replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")  # unfolded
    assert dsn["sender"] == ""
    assert b"multipart/report" in report
    assert b"Action: failed" in report
    assert re.search(rf"^Final-Recipient: rfc822; *{re.escape(mailbox)}\r$".encode(), report, re.MULTILINE | re.IGNORECASE)
    assert re.search(rb"^Status: 5\.\d+\.\d+", report, re.MULTILINE)
    assert b"The quick brown fox" not in report  # header section only, unless RET=FULL


def test_ret_full_returns_the_content_and_envid(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    send(
        relay, [f"rcpt-550-{test_id}@dest.example"], make_content(test_id), sender=f"full-{test_id}@acme.example",
        mail_parameters=" RET=FULL ENVID=QQ314159", rcpt_parameters=" ORCPT=rfc822;orig+2Bx@dest.example",
    )  # fmt: skip
    (dsn,) = sink.wait_for(lambda record: f"full-{test_id}@acme.example" in record["recipients"])
    report = base64.b64decode(dsn["content"])
    assert b"The quick brown fox" in report
    assert b"Original-Envelope-Id: QQ314159" in report
    assert re.search(rb"^Original-Recipient: rfc822; ?orig\+x@dest\.example", report, re.MULTILINE)


@pytest.mark.parametrize(("notify", "sender"), [("NEVER", "x@acme.example"), ("SUCCESS", "x@acme.example")])
def test_notify_that_does_not_ask_for_failure_is_silent(shared_pair: Pair, notify: str, sender: str) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    message = send(
        relay, [f"rcpt-550-{test_id}@dest.example"], make_content(test_id), sender=f"silent-{test_id}@acme.example",
        rcpt_parameters=f" NOTIFY={notify}",
    )  # fmt: skip
    relay.wait_final({message})
    other = send(relay, [f"later-{test_id}@dest.example"])
    relay.wait_final({other})
    assert not [record for record in sink.received() if f"silent-{test_id}@acme.example" in record["recipients"]]


def test_no_dsn_for_a_null_reverse_path(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    before = len([record for record in sink.received() if record["sender"] == ""])
    message = send(relay, [f"rcpt-550-{test_id}@dest.example"], make_content(test_id), username="daemon-1", sender="")
    relay.wait_final({message})
    accepted = [event for event in relay.events() if event["kind"] == "accepted" and test_id in str(event)]
    assert len(accepted) == 1
    assert len([record for record in sink.received() if record["sender"] == ""]) >= before


@pytest.mark.row("36")
def test_three_recipients_have_three_outcomes_of_one_data(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    good, later, never = (
        f"good-{test_id}@dest.example",
        f"rcpt-once-452-{test_id}@dest.example",
        f"rcpt-550-{test_id}@dest.example",
    )
    message = send(relay, [good, later, never], make_content(test_id), rcpt_parameters=" NOTIFY=NEVER")
    relay.wait_final({message})
    assert kinds(relay, message, good) == ["delivered"]
    assert kinds(relay, message, later) == ["deferred", "delivered"]
    assert kinds(relay, message, never) == ["bounced"]
    receipts = [record["recipients"] for record in sink.received() if record["test_id"] == test_id]
    assert receipts == [[good], [later]]


@pytest.mark.row("38")
def test_an_answer_that_never_comes_is_retried_and_flagged(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    mailbox = f"drop-once-{test_id}@dest.example"
    message = send(relay, [mailbox], make_content(test_id))
    relay.wait_final({message})
    events = relay.events_of(message)
    assert kinds(relay, message, mailbox) == ["deferred", "delivered"]
    assert any(event.get("possible_duplicate") for event in events)
    assert len([record for record in sink.received() if record["test_id"] == test_id]) == 2


@pytest.mark.row("46")
def test_a_next_hop_that_closes_after_each_message_loses_none(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    messages = {send(relay, [f"bye-{n}-{test_id}@dest.example"]) for n in range(20)}
    relay.wait_final(messages)
    receipts = [record for record in sink.received() if test_id in record["recipients"][0]]
    assert len(receipts) == 20
    deferred = [event for message in messages for event in relay.events_of(message) if event["kind"] == "deferred"]
    assert not deferred  # a cached connection that ended is no attempt's fault


@pytest.mark.row("41")
def test_too_many_recipients_for_the_next_hop_are_split(shared_pair: Pair) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    recipients = [f"rcpt-once-452-{n}-{test_id}@dest.example" for n in range(5)] + [
        f"n{n}-{test_id}@dest.example" for n in range(5)
    ]
    message = send(relay, recipients, make_content(test_id))
    relay.wait_final({message})
    received = [mailbox for record in sink.received() if record["test_id"] == test_id for mailbox in record["recipients"]]
    assert sorted(received) == sorted(recipients)


@pytest.mark.row("A12", "G3")
@pytest.mark.parametrize("line", [998, 999, 2000, 100_000])
def test_the_next_hop_sees_crlf_only_and_lines_within_the_limit(shared_pair: Pair, line: int) -> None:
    relay, sink = shared_pair
    test_id = new_test_id()
    content = make_content(test_id) + b"x" * line + b"\r\n"
    reply = submit(relay.ports["cleartext"], content, [f"{test_id}@dest.example"])
    if line > 998 and reply.code == 554:
        assert reply.enhanced == "5.6.0"
        return
    queued_id(reply)
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id)
    received = base64.b64decode(record["content"])
    assert received.replace(b"\r\n", b"").count(b"\n") == received.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(map(len, received.split(b"\r\n"))) <= 998
    if line <= 998:
        assert received.endswith(content[content.index(b"\r\n\r\n") :])


def test_an_unreachable_next_hop_defers_and_expires(pair: Make) -> None:
    settings = Settings(relay={"expire_after_seconds": 4, "retry_first_seconds": 1, "retry_max_seconds": 1})
    settings.routes = {"dead.example": "127.0.0.1:1"}
    relay, sink = pair(settings)
    test_id = new_test_id()
    message = send(relay, [f"{test_id}@dead.example"], make_content(test_id), sender=f"back-{test_id}@acme.example")
    relay.wait_final({message}, 30)
    found = [event["kind"] for event in relay.events_of(message)]
    assert found[0] == "accepted"
    assert found[-1] == "expired"
    assert set(found[1:-1]) == {"deferred"}
    assert sink.wait_for(lambda record: f"back-{test_id}@acme.example" in record["recipients"])
