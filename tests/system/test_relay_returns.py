"""Reports of next hops to our return paths: whom they name, and what the submitter, who asked by RFC 3461, hears of them."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.ports import free_port
from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import ROOT, Recorder, Relay, json_lines, running, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit
from tests.system.test_relay_dsn import Report, unfolded
from tests.system.test_relay_inbound import RETURN_PATH, hand_in, notes

HOP_LOG = "hop.jsonl"
HEAD = """From: MAILER-DAEMON@mx.dest.example
Subject: Report
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"

--b1
Content-Type: text/plain

Well.
--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.dest.example

"""
BLOCK = """Final-Recipient: rfc822; {final}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {diagnostic}

"""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two workers with a bounce domain; dest.example is a next hop with DSN, so that reporting is its business."""
    log, port = tmp_path_factory.mktemp("hop") / HOP_LOG, free_port()
    words = [sys.executable, str(ROOT / "tests/system/sink.py"), "--listen", f"127.0.0.1:{port}", "--log", str(log)]
    settings = Settings(workers=2, bounce_domain="bounce.example", routes={"dest.example": f"127.0.0.1:{port}"})
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        with running(tmp_path_factory.mktemp("returns"), settings) as pair:
            (pair[0].folder / HOP_LOG).symlink_to(log)
            yield pair
        process.kill()


@pytest.fixture
def relay(two_workers: Pair) -> Relay:
    return two_workers[0]


@pytest.fixture
def sink(two_workers: Pair) -> Recorder:
    return two_workers[1]


class Sent:
    """A delivered message to some recipients, with what its submitter asked."""

    def __init__(self, relay: Relay, sink: Recorder, *names: str, mail: str = "", rcpt: str = "") -> None:
        self.relay, self.sink = relay, sink
        self.id = new_test_id()
        self.submitter = f"back-{self.id}@acme.example"
        self.mailboxes = [f"{name}-{self.id}@dest.example" for name in names or ("one",)]
        self.message = queued_id(
            submit(
                relay.ports["cleartext"], make_content(self.id), self.mailboxes, sender=self.submitter,
                mail_parameters=mail, rcpt_parameters=rcpt,
            )
        )  # fmt: skip
        relay.wait_final({self.message})
        (record,) = [one for one in json_lines([relay.folder / HOP_LOG]) if self.mailboxes[0] in one["recipients"]]
        found = RETURN_PATH.search(record["mail"])
        assert found, record
        self.return_path = found[0]

    def report(self, *blocks: str) -> None:
        """Hand in a report; it must be taken."""
        assert hand_in(self.relay, self.return_path, HEAD + "".join(blocks) + "--b1--\n").code == 250

    def told(self, count: int = 1) -> list[Report]:
        """Give our reports to the submitter, exactly so many."""
        wait_until(lambda: len(self._ours()) == count, f"{count} reports are made", 10)
        for report in self._ours():
            self.relay.wait_final({report})
        records = self.sink.wait_for(lambda one: one["recipients"] == [self.submitter], count) if count else []
        assert len([one for one in self.sink.received() if one["recipients"] == [self.submitter]]) == count
        return [Report(record) for record in records]

    def _ours(self) -> set[str]:
        events = self.relay.events()
        return {event["message"] for event in events if event.get("reason") == f"report for {self.message}"}

    def heard(self) -> list[dict[str, str]]:
        return [event for event in self.relay.events_of(self.message) if event["kind"] == "dsn_received"]


def block(final: str, action: str = "failed", status: str = "5.1.1", diagnostic: str = "550 5.1.1 no such user") -> str:
    return BLOCK.format(final=final, action=action, status=status, diagnostic=diagnostic)


@pytest.mark.row("H3")
def test_a_bounce_that_names_none_of_the_recipients_is_noted_at_whichever_worker_it_arrives(
    relay: Relay, sink: Recorder
) -> None:
    sent = Sent(relay, sink, "one", "two")
    for _ in range(6):  # some reach the worker that did not accept the message
        sent.report(block("stranger@elsewhere.example"))
    found = wait_until(lambda: len(notes(relay, sent.message)) == 6 and notes(relay, sent.message), "all are noted", 10)
    assert all("naming none of its recipients" in event["reason"] for event in found)
    assert not sent.heard()


def test_a_bounce_that_is_heard_again_is_not_noted_again(relay: Relay, sink: Recorder) -> None:
    sent = Sent(relay, sink, "one", "two")
    for _ in range(4):
        sent.report(block(sent.mailboxes[1]))
    assert [event["recipient"] for event in sent.heard()] == [sent.mailboxes[1]]
    assert not notes(relay, sent.message)


def test_a_bounce_that_names_one_of_ours_and_a_stranger_is_told_about_ours(relay: Relay, sink: Recorder) -> None:
    sent = Sent(relay, sink, "one", "two")
    sent.report(block("stranger@elsewhere.example"), block(sent.mailboxes[0]))
    assert [event["recipient"] for event in sent.heard()] == [sent.mailboxes[0]]


def test_a_forwarded_recipient_is_known_by_the_original_one(relay: Relay, sink: Recorder) -> None:
    sent = Sent(relay, sink, "one", "two")
    sent.report(f"Original-Recipient: rfc822;{sent.mailboxes[1]}\n" + block("forwarded@elsewhere.example"))
    assert [event["recipient"] for event in sent.heard()] == [sent.mailboxes[1]]


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY", "SUCCESS,DELAY"])
def test_a_bounce_is_not_told_to_who_did_not_ask_about_failure(relay: Relay, sink: Recorder, notify: str) -> None:
    sent = Sent(relay, sink, rcpt=f" NOTIFY={notify}")
    sent.report(block(sent.mailboxes[0]))
    assert [event["reason"] for event in sent.heard()] == ["failed"]
    assert sent.told(0) == []


@pytest.mark.parametrize(
    ("asked", "action", "status"),
    [
        ("SUCCESS", "delivered", "2.1.5"),
        ("SUCCESS", "relayed", "2.0.0"),
        ("SUCCESS,FAILURE", "expanded", "2.0.0"),
        ("DELAY", "delayed", "4.2.2"),
    ],
)
def test_a_report_that_was_asked_for_is_passed_on(relay: Relay, sink: Recorder, asked: str, action: str, status: str) -> None:
    sent = Sent(relay, sink, rcpt=f" NOTIFY={asked}")
    sent.report(block(sent.mailboxes[0], action, status, f"{status[0]}50 {status} as said"))
    (report,) = sent.told()
    (told,) = report.recipients
    assert (told["Action"], told["Status"]) == (action, status)
    assert unfolded(told["Diagnostic-Code"]) == f"smtp; {status[0]}50 {status} as said"
    assert told["Remote-MTA"] == "dns; mx.dest.example"
    assert told["Will-Retry-Until"] is None
    assert report.returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", "delayed"])
def test_a_report_that_nobody_asked_for_ends_as_an_event(relay: Relay, sink: Recorder, action: str) -> None:
    for asked in ("", " NOTIFY=FAILURE", " NOTIFY=NEVER"):
        sent = Sent(relay, sink, rcpt=asked)
        sent.report(block(sent.mailboxes[0], action, "2.0.0"))
        assert [event["reason"] for event in sent.heard()] == [action]
        assert sent.told(0) == []


def test_envelope_id_and_original_recipient_come_back_with_a_bounce(relay: Relay, sink: Recorder) -> None:
    sent = Sent(relay, sink, mail=" RET=FULL ENVID=QQ+2B17", rcpt=" NOTIFY=FAILURE ORCPT=rfc822;first+2Bname@acme.example")
    sent.report("Original-Recipient: rfc822;first+name@acme.example\n" + block("forwarded@elsewhere.example"))
    (report,) = sent.told()
    assert report.about_message["Original-Envelope-Id"] == "QQ+17"
    (told,) = report.recipients
    assert unfolded(told["Original-Recipient"]).replace("; ", ";") == "rfc822;first+name@acme.example"
    assert unfolded(told["Final-Recipient"]) == f"rfc822; {sent.mailboxes[0]}"
    (accepted,) = [event for event in relay.events_of(sent.message) if event["kind"] == "accepted"]
    assert accepted["envid"] == "QQ+17"
    assert accepted["notify"] == ["FAILURE"]
    assert accepted["orcpt"] == ["rfc822;first+name@acme.example"]
    assert re.search(rb"(?m)^Message-ID: <.*" + sent.id.encode(), report.octets)
    assert b"lazy dog" not in report.octets


def test_what_was_not_asked_takes_no_room_in_the_event(relay: Relay, sink: Recorder) -> None:
    sent = Sent(relay, sink)
    (accepted,) = [event for event in relay.events_of(sent.message) if event["kind"] == "accepted"]
    assert {"notify", "orcpt", "envid"} & accepted.keys() == set()
