"""What comes back: return paths on the wire, bounces at whichever worker they arrive, and what the inbound listener refuses."""

import re
from collections.abc import Iterator

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, running, wait_until
from tests.system.smtp import Reply, Wire, make_content, new_test_id, queued_id, submit

RETURN_PATH = re.compile(r"b-([a-z2-7]{47})@bounce\.example")
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

Reporting-MTA: dns; {mta}

Final-Recipient: rfc822; {mailbox}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {diagnostic}

--b1--
"""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("inbound"), Settings(workers=2, bounce_domain="bounce.example")) as pair:
        yield pair


@pytest.fixture
def relay(two_workers: Pair) -> Relay:
    return two_workers[0]


@pytest.fixture
def sink(two_workers: Pair) -> Recorder:
    return two_workers[1]


class Sent:
    """A delivered message, its return path and its submitter."""

    def __init__(self, relay: Relay, sink: Recorder) -> None:
        self.relay = relay
        self.id = new_test_id()
        self.submitter = f"back-{self.id}@acme.example"
        self.mailbox = f"to-{self.id}@dest.example"
        port = relay.ports["cleartext"]
        self.message = queued_id(submit(port, make_content(self.id), [self.mailbox], sender=self.submitter))
        (record,) = sink.wait_for(lambda record: record["test_id"] == self.id and record["recipients"] == [self.mailbox])
        self.return_path: str = record["sender"]
        relay.wait_final({self.message})

    def bounce(
        self, status: str = "5.1.1", action: str = "failed", mta: str = "mx.dest.example", diagnostic: str = ""
    ) -> Reply:
        diagnostic = diagnostic or f"550 {status} no such user"
        body = DSN.format(
            to=self.return_path, mailbox=self.mailbox, status=status, action=action, mta=mta, diagnostic=diagnostic
        )
        return hand_in(self.relay, self.return_path, body)

    def wait_for_bounces(self, count: int) -> None:
        wait_until(lambda: len(self.bounces()) == count, "the bounces are events", 10)

    def spool(self) -> int:
        return int(self.relay.events_of(self.message)[0]["spool"])

    def told(self, sink: Recorder) -> list[dict[str, str]]:
        return sink.wait_for(lambda record: record["recipients"] == [self.submitter])

    def bounces(self) -> list[dict[str, str]]:
        return [event for event in self.relay.events_of(self.message) if event["kind"] == "dsn_received"]


def hand_in(relay: Relay, to: str, body: str, sender: str = "") -> Reply:
    """Hand a message to the inbound listener; give the last reply."""
    with Wire(relay.ports["inbound"]) as wire:
        wire.hello("mx.dest.example")
        wire.expect(f"MAIL FROM:<{sender}>", 250)
        reply = wire.say(f"RCPT TO:<{to}>")
        return wire.data(body.replace("\n", "\r\n").encode()) if reply.code == 250 else reply


def notes(relay: Relay, what: str) -> list[dict[str, str]]:
    return [event for event in relay.events() if event["kind"] == "inbound_other" and what in event.get("reason", "")]


def counted(relay: Relay, name: str) -> float:
    return sum(float(line.split()[-1]) for line in relay.metrics().splitlines() if re.match(rf"{name}(_total)?[ {{]", line))


def test_the_reverse_path_on_the_wire_is_a_token_of_47_characters(relay: Relay, sink: Recorder) -> None:
    first, second = Sent(relay, sink), Sent(relay, sink)
    assert RETURN_PATH.fullmatch(first.return_path)
    assert RETURN_PATH.fullmatch(second.return_path)
    assert first.return_path != second.return_path


@pytest.mark.row("H3")
def test_a_bounce_finds_its_message_at_whichever_worker_it_arrives(relay: Relay, sink: Recorder) -> None:
    sent = [Sent(relay, sink) for _ in range(3)]
    while len({one.spool() for one in sent}) < 2 and len(sent) < 20:
        sent.append(Sent(relay, sink))
    for one in sent:
        for number in range(5):  # five connections: some reach the worker that did not accept the message
            assert one.bounce(action="failed" if number == 0 else "delayed").code == 250
    for one in sent:
        one.wait_for_bounces(2)
        event = next(event for event in one.bounces() if event["reason"] == "failed")
        assert event["account"] == "acct_acme"
        assert event["recipient"] == one.mailbox
        assert event["classified"] == "recipient"
        assert event["enhanced"] == "5.1.1"
        assert event["host"] == "mx.dest.example"
        (told,) = one.told(sink)
        assert told["sender"] == ""
    assert len({one.spool() for one in sent}) == 2
    assert all(len({event["spool"] for event in relay.events_of(one.message)}) == 1 for one in sent)


@pytest.mark.parametrize(
    ("status", "diagnostic", "expected"),
    [
        ("5.7.1", "550 5.7.1 message rejected as spam", "policy"),
        ("4.2.2", "452 4.2.2 mailbox full", "temporary"),
    ],
)
def test_a_bounce_is_classified(relay: Relay, sink: Recorder, status: str, diagnostic: str, expected: str) -> None:
    one = Sent(relay, sink)
    assert one.bounce(status, diagnostic=diagnostic).code == 250
    wait_until(one.bounces, "the bounce is an event", 10)
    assert one.bounces()[0]["classified"] == expected


@pytest.mark.row("H2")
def test_a_token_that_is_not_ours_is_an_unknown_mailbox(relay: Relay, sink: Recorder) -> None:
    one = Sent(relay, sink)
    local_part = one.return_path.partition("@")[0]
    for wrong in (
        local_part[:20] + ("a" if local_part[20] != "a" else "b") + local_part[21:],
        local_part[:-1],
        local_part + "a",
        "b-",
        "b-" + "a" * 47,
        "someone",
    ):
        reply = hand_in(relay, f"{wrong}@bounce.example", "x")
        assert (reply.code, reply.enhanced) == (550, "5.1.1"), wrong
    assert hand_in(relay, f"{local_part.upper()}@BOUNCE.example", "Subject: x\n\nx\n").code == 250


@pytest.mark.row("H1")
def test_the_inbound_listener_relays_for_nobody(relay: Relay, sink: Recorder) -> None:
    one = Sent(relay, sink)
    local_part = one.return_path.partition("@")[0]
    for to in (
        "someone@dest.example", "printer@acme.example", f"{local_part}@dest.example", f"{local_part}@x.bounce.example",
        f'"{one.mailbox}"@elsewhere.example',
    ):  # fmt: skip
        reply = hand_in(relay, to, "x")
        assert (reply.code, reply.enhanced) == (550, "5.7.1"), to
    for to in (f"{one.mailbox.partition('@')[0]}%dest.example@bounce.example", f'"{one.mailbox}"@bounce.example'):
        assert hand_in(relay, to, "x").code == 550
    with Wire(relay.ports["inbound"]) as wire:
        assert not [word for word in wire.hello().lines if word.startswith("AUTH")]


@pytest.mark.row("H3")
def test_a_persons_answer_to_a_return_path_is_noted_and_bounces_nothing(relay: Relay, sink: Recorder) -> None:
    one = Sent(relay, sink)
    assert (
        hand_in(relay, one.return_path, f"From: <a@b.example>\nTo: <{one.return_path}>\n\nThanks!\n", "a@b.example").code == 250
    )
    (event,) = wait_until(lambda: notes(relay, one.message), "the answer is an event", 10)
    assert one.message in event["reason"]
    assert not one.bounces()


@pytest.mark.row("H4")
def test_our_own_report_that_comes_back_is_dropped_and_counted(relay: Relay, sink: Recorder) -> None:
    one = Sent(relay, sink)
    before = counted(relay, "postbud_inbound_dropped")
    assert one.bounce(mta="relay.example").code == 250
    wait_until(lambda: counted(relay, "postbud_inbound_dropped") > before, "it is counted", 10)
    assert not one.bounces()
    assert not [record for record in sink.received() if record["recipients"] == [one.submitter]]


def test_mail_to_postmaster_is_kept_as_a_file(relay: Relay) -> None:
    test_id = new_test_id()
    for to in ("postmaster@relay.example", "Abuse@bounce.example"):
        assert hand_in(relay, to, f"From: <a@b.example>\nSubject: {test_id}\n\nHello\n", "a@b.example").code == 250
    kept = [path for path in relay.data.rglob("*") if path.is_file() and path.suffix == ".eml"]
    found = [path for path in kept if test_id.encode() in path.read_bytes()]
    assert len(found) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)
    wait_until(lambda: all(notes(relay, path.name) for path in found), "both are events", 10)
