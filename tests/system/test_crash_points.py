"""Kill -9 at named places of the journey: what each leaves behind, and that the promise holds (rows 1-9, 11)."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Pair
from tests.system.harness import Recorder, Relay, is_zombie, wait_until
from tests.system.invariants import check
from tests.system.smtp import Reply, Wire, content_digest, make_content, new_test_id, submit

Make = Callable[..., Pair]
# The commits of a worker that starts on an empty spool and takes one message: its own opening, the accept, the outcome.
ACCEPT, OUTCOME = 2, 3


class Witness:
    """The client's log of a test that submits by hand."""

    def __init__(self, relay: Relay, sink: Recorder) -> None:
        self.relay, self.sink = relay, sink
        self.records: list[dict[str, Any]] = []

    def submit(self, recipients: list[str], size: int = 1024, test_id: str | None = None) -> str | None:
        """Submit one message; give its id, or None when no 250 came."""
        test_id = test_id or new_test_id()
        content = make_content(test_id, size)
        record = {"test_id": test_id, "recipients": recipients, "sha256": content_digest(content)[1], "account": "acct_acme"}
        try:
            reply = submit(self.relay.ports["cleartext"], content, recipients)
        except (OSError, AssertionError):
            reply = Reply(0)
        state = {250: "queued", 0: "unknown"}.get(reply.code, "refused")
        message = reply.text.rpartition(" ")[2] if state == "queued" else None
        self.records.append(record | {"state": state, "message": message})
        return message

    def check(self) -> dict[str, int]:
        """Wait until all is final, check P1-P6, give the counts."""
        self.relay.wait_drained()
        time.sleep(0.7)
        report = check(self.records, self.sink.received(), self.relay.events(), self.relay.queue(), self.relay.kill_times)
        assert not report.violations, report.as_json()
        return report.counts


def crash(relay: Relay, failpoints: str, act: Callable[[], Any]) -> Any:
    """Start with failpoints, act, wait until a worker was killed by one, end everything, start again without."""
    relay.start(failpoints=failpoints)
    workers = set(relay.workers())
    began = time.time()
    answer = act()
    wait_until(lambda: any(is_zombie(pid) for pid in workers), f"{failpoints} killed a worker", 20)
    relay.kill_all()
    steps = max(1, int((time.time() - began) / 0.2))
    relay.kill_times += [began + 0.2 * step for step in range(steps)]  # the supervisor may have started it into the same fate
    relay.start()
    return answer


def box(witness_id: str = "", prefix: str = "a") -> str:
    return f"{prefix}-{witness_id or new_test_id()}@dest.example"


@pytest.mark.row("1")
@pytest.mark.parametrize("size", [20_000, 3_000_000], ids=["in memory", "in a file"])
def test_kill_in_the_middle_of_data_leaves_nothing(pair: Make, size: int) -> None:
    relay, sink = pair()
    witness = Witness(relay, sink)
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        wire.auth()
        wire.expect("MAIL FROM:<printer@acme.example>", 250)
        wire.expect(f"RCPT TO:<{box()}>", 250)
        wire.expect("DATA", 354)
        wire.send(make_content(new_test_id(), size))  # no final dot
        time.sleep(0.5)
        relay.kill_all()
    relay.start()
    assert relay.queue() == []
    assert witness.submit([box()])
    assert witness.check()["events_delivered"] == 1
    big = [path for path in relay.data.rglob("*") if path.is_file() and path.stat().st_size >= 1_000_000 and "tmp" in path.name]
    assert not big


@pytest.mark.row("2")
@pytest.mark.parametrize(
    ("failpoint", "size"),
    [
        (f"before_commit=kill@{ACCEPT}", 1024),
        ("content_before_fsync=kill@1", 1_000_000),
        ("content_after_rename=kill@1", 1_000_000),
    ],
)
def test_kill_before_the_commit_leaves_nothing_to_send(pair: Make, failpoint: str, size: int) -> None:
    relay, sink = pair(start=False)
    witness = Witness(relay, sink)
    assert crash(relay, failpoint, lambda: witness.submit([box()], size)) is None
    assert relay.queue() == []
    assert witness.submit([box()], size)
    counts = witness.check()
    assert counts["accepted_without_250"] == 0
    assert len(sink.received()) == 1


@pytest.mark.row("3")
def test_kill_after_the_commit_and_before_the_250_delivers_once(pair: Make) -> None:
    relay, sink = pair(start=False)
    witness = Witness(relay, sink)
    assert crash(relay, f"after_commit=kill@{ACCEPT}", lambda: witness.submit([box()])) is None
    counts = witness.check()
    assert counts["accepted_without_250"] == 1
    assert len(sink.received()) == 1
    assert witness.submit([box()])  # the client tries again: a second message, allowed and counted
    assert witness.check()["events_delivered"] == 2


@pytest.mark.row("5")
@pytest.mark.parametrize("stage", ["hang-rcpt-once", "hang-data-once"])
def test_kill_in_the_middle_of_an_attempt_sends_it_once(pair: Make, stage: str) -> None:
    relay, sink = pair()
    witness = Witness(relay, sink)
    assert witness.submit([box(prefix=stage)])
    time.sleep(1.0)
    relay.kill_all()
    relay.start()
    counts = witness.check()
    assert counts["duplicates"] == 0
    assert len(sink.received()) == 1


@pytest.mark.row("6")
def test_kill_between_the_final_dot_and_its_reply_makes_at_most_one_duplicate(pair: Make) -> None:
    relay, sink = pair()
    witness = Witness(relay, sink)
    recipients = [box(prefix="slow-a"), box(prefix="slow-b")]
    assert witness.submit(recipients)
    sink.wait_for(lambda _: True)
    relay.kill_all()
    relay.start()
    counts = witness.check()
    assert counts["duplicates"] <= 2  # one a recipient


@pytest.mark.row("7")
def test_kill_between_the_remote_250_and_its_record_makes_at_most_one_duplicate(pair: Make) -> None:
    relay, sink = pair(start=False)
    witness = Witness(relay, sink)
    assert crash(relay, f"before_commit=kill@{OUTCOME}", lambda: witness.submit([box()]))
    assert witness.check()["duplicates"] <= 1


@pytest.mark.row("8")
def test_kill_after_the_record_keeps_event_and_outcome(pair: Make) -> None:
    relay, sink = pair(start=False)
    witness = Witness(relay, sink)
    assert crash(relay, f"after_commit=kill@{OUTCOME}", lambda: witness.submit([box()]))
    counts = witness.check()
    assert counts["events_delivered"] == 1


@pytest.mark.row("9")
def test_kill_at_a_checkpoint_restarts_clean(pair: Make) -> None:
    relay, sink = pair(start=False)
    witness = Witness(relay, sink)

    def fill() -> None:
        for _ in range(60):
            witness.submit([box()], 100_000)

    relay.start(failpoints="before_checkpoint=kill@1")
    began = time.time()
    fill()
    time.sleep(2.0)
    relay.kill_all()
    relay.kill_times += [began + 0.2 * step for step in range(int((time.time() - began) / 0.2))]
    relay.start()
    witness.submit([box()])
    assert witness.check()["client_queued"] >= 1


@pytest.mark.row("11")
def test_without_their_supervisor_workers_end_and_the_spool_has_one_owner(pair: Make) -> None:
    relay, sink = pair()
    witness = Witness(relay, sink)
    workers = relay.workers()
    assert workers
    assert witness.submit([box()])
    relay.kill(relay.pid)
    assert relay.process is not None
    relay.process.wait(10)
    wait_until(lambda: all(is_zombie(pid) for pid in workers), "workers without a supervisor end", 20)
    relay.start()
    assert witness.submit([box()])
    assert witness.check()["events_delivered"] == 2


@pytest.mark.row("11")
def test_a_second_relay_on_the_same_data_is_refused(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair()
    witness = Witness(relay, sink)
    second = Relay(tmp_path / "second", relay.settings)
    (second.folder / "data").symlink_to(relay.data)
    second.start(wait=False)
    try:
        time.sleep(3.0)
        assert not second.greets()
        assert witness.submit([box()])
        assert witness.check()["events_delivered"] == 1
    finally:
        second.close()


@pytest.mark.row("56")
def test_a_message_that_kills_its_worker_is_set_aside(pair: Make) -> None:
    """Each time that it is under attempt the worker dies: after three times it is quarantined, and others go on."""
    relay, sink = pair()
    witness = Witness(relay, sink)
    poison = witness.submit([box(prefix="hang-data")])
    assert poison
    for _ in range(3):
        time.sleep(2.0)  # under attempt: the sink never answers DATA
        (worker,) = relay.workers()
        relay.kill(worker)
        wait_until(lambda worker=worker: is_zombie(worker) and relay.workers(), "the supervisor starts another", 20)
        relay.wait_ready()
    wait_until(
        lambda: any(event["kind"] == "quarantined" and event.get("message") == poison for event in relay.events()),
        "the poison message is quarantined",
        20,
    )
    assert relay.queue() == []
    others = {witness.submit([box()]) for _ in range(5)}
    assert None not in others
    relay.wait_final({other for other in others if other})
