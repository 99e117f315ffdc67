"""Reports of next hops to our return paths: whom they name, and what the submitter, who asked by RFC 3461, hears of them."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, running, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit
from tests.system.test_relay_inbound import hand_in, notes

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
    with running(tmp_path_factory.mktemp("returns"), Settings(workers=2, bounce_domain="bounce.example")) as pair:
        yield pair


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
        (record,) = sink.wait_for(lambda record: record["test_id"] == self.id and self.mailboxes[0] in record["recipients"])
        self.return_path: str = record["sender"]
        relay.wait_final({self.message})

    def report(self, *blocks: str) -> None:
        """Hand in a report; it must be taken."""
        assert hand_in(self.relay, self.return_path, HEAD + "".join(blocks) + "--b1--\n").code == 250

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
