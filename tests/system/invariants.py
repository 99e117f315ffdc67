"""P1-P6, checked by machine from four witnesses: the client's log, the queue, the sink's log, and the events.

Run: python -m tests.system.invariants FOLDER (client.jsonl, sink.jsonl, data/events/*.jsonl, and kills.json and queue.json when
there), or `check(...)` with the records. The report is JSON; `violations` is empty when all holds.

| what | how it is judged |
|---|---|
| P1 | every recipient of every 250 is in an `accepted` event of that id, and is final, queued, or quarantined if harmed |
| P2 | a further copy at the sink is allowed if a kill fell between the one before and its record, or after an unknown answer |
| P3 | exactly one final event a delivery, and not queued too |
| P4 | the sink's hash is the client's |
| P5 | the event's account is the client's; the sink got only recipients that were given with that test id |
| P6 | (by the tests that bring bad messages: the good ones must pass here) |
| events | one id, one content; accepted comes first, nothing but a returned DSN after the final one |
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.harness import FINAL_KINDS, json_lines

Record = dict[str, Any]
AFTER_FINAL = frozenset({"dsn_received", "inbound_other"})
GRACE_SECONDS = 10.0  # how long after the sink had a message its answer may still be on the way or being recorded


@dataclass
class Report:
    """What was found. `violations` holds at most 50 texts; `violation_count` all."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    violations: list[str] = field(default_factory=list)
    violation_count: int = 0

    def violation(self, clause: str, text: str) -> None:
        """Note one."""
        self.violation_count += 1
        self.counts[f"violations_{clause}"] += 1
        if len(self.violations) < 50:
            self.violations.append(f"{clause}: {text}")

    def as_json(self) -> str:
        """Give the report as JSON."""
        return json.dumps(
            {
                "counts": dict(sorted(self.counts.items())),
                "violation_count": self.violation_count,
                "violations": self.violations,
            },
            indent=2,
        )


def check(
    client: list[Record],
    sink: list[Record],
    events: list[Record],
    queue: list[Record],
    kill_times: Sequence[float] = (),
    grace_seconds: float = GRACE_SECONDS,
    set_aside: int = 0,
) -> Report:
    """Judge. `queue` holds {message, delivery?, recipient} of what is still queued.

    `set_aside` is how many promised recipients the test harmed on the disk: so many, no less, must be told as quarantined.
    """
    report = Report()
    histories = _Histories(events, report)
    still = {(record.get("message"), record.get("recipient") or record.get("mailbox")) for record in queue}
    report.counts["queued_still"] = len(still)
    attempts = {record["test_id"]: record for record in client}
    _check_promises(client, histories, still, report)
    if report.counts["set_aside"] != set_aside:
        report.violation("P1", f"{report.counts['set_aside']} promised recipients are in quarantine, {set_aside} were harmed")
    _check_sink(attempts, sink, report)
    _check_delivered_was_received(attempts, histories, sink, report)
    _check_duplicates(sink, histories, sorted(kill_times), grace_seconds, report)
    report.counts["kill_times"] = len(kill_times)
    return report


class _Histories:
    """Events by message and recipient, with the rules on events themselves."""

    def __init__(self, events: list[Record], report: Report) -> None:
        self.accepted: dict[str, Record] = {}
        self.final: dict[str, dict[str, Record]] = defaultdict(dict)  # delivery -> final event by id
        self.unknown: dict[str, int] = defaultdict(int)  # delivery -> attempts recorded as unknown after the dot
        self.aside: set[str] = set()  # ids of quarantined deliveries, or of their message where no more could be read
        seen: dict[str, Record] = {}
        for event in events:
            known = seen.get(event["id"])
            if known is not None:
                report.counts["events_shipped_twice"] += 1
                if known != event:
                    report.violation("events", f"{event['id']} has two contents")
                continue
            seen[event["id"]] = event
            self._take(event, report)
        report.counts["events"] = len(seen)

    def _take(self, event: Record, report: Report) -> None:
        kind, message, delivery = event["kind"], event.get("message", ""), event.get("delivery", "")
        if kind == "accepted":
            if message in self.accepted:
                report.violation("events", f"{message} accepted twice")
            self.accepted[message] = event
            return
        if message and message not in self.accepted and kind not in AFTER_FINAL:
            report.violation("events", f"{message}: {kind} before accepted")
        if self.final.get(delivery) and kind not in AFTER_FINAL and kind not in FINAL_KINDS:
            report.violation("events", f"{delivery}: {kind} after its final event")
        if kind in FINAL_KINDS:
            self.final[delivery][event["id"]] = event
            report.counts[f"events_{kind}"] += 1
            if len(self.final[delivery]) > 1:
                report.violation("P3", f"{delivery} is final {len(self.final[delivery])} times")
        elif kind == "quarantined":
            report.counts["events_quarantined"] += 1
            self.aside.add(delivery or message)
        elif kind == "deferred":
            report.counts["events_deferred"] += 1
            self.unknown[delivery] += bool(event.get("possible_duplicate"))


def _check_promises(client: list[Record], histories: _Histories, still: set[tuple[Any, Any]], report: Report) -> None:
    confirmed = set()
    for record in client:
        report.counts[f"client_{record['state']}"] += 1
        if record["state"] != "queued":
            continue
        message = record["message"]
        confirmed.add(message)
        accepted = histories.accepted.get(message)
        if accepted is None:
            report.violation("P1", f"{message} ({record['test_id']}) was answered 250 and has no accepted event")
            continue
        if accepted.get("account") != record.get("account", accepted.get("account")):
            report.violation("P5", f"{message} is {record['account']}'s, its event says {accepted.get('account')}")
        deliveries = dict(zip(accepted.get("recipients", ()), accepted.get("deliveries", ()), strict=False))
        for mailbox in record["recipients"]:
            report.counts["promised"] += 1
            delivery = deliveries.get(mailbox)
            if delivery is None:
                report.violation("P1", f"{message}: {mailbox} is not in the accepted event")
                continue
            final, queued = histories.final.get(delivery), (message, mailbox) in still
            if not final and not queued and histories.aside & {delivery, message}:
                report.counts["set_aside"] += 1
            elif not final and not queued:
                report.violation("P1", f"{message}: {mailbox} is neither final nor queued")
            elif final and queued:
                report.violation("P3", f"{message}: {mailbox} is final and queued")
    unconfirmed = [
        message for message, event in histories.accepted.items() if message not in confirmed and event.get("credential")
    ]
    report.counts["accepted_without_250"] = len(unconfirmed)
    if len(unconfirmed) > report.counts["client_unknown"]:
        report.violation("P1", f"{len(unconfirmed)} accepted without a 250, {report.counts['client_unknown']} attempts unknown")


def _check_sink(attempts: dict[str, Record], sink: list[Record], report: Report) -> None:
    for receipt in sink:
        report.counts["sink_messages"] += 1
        attempt = attempts.get(receipt["test_id"])
        if attempt is None:
            report.violation("P4", f"the sink got a message of an unknown test id {receipt['test_id']!r}")
            continue
        if attempt["state"] == "refused":
            report.violation("P1", f"{receipt['test_id']} was refused and yet sent")
        if receipt["sha256"] != attempt["sha256"]:
            report.violation("P4", f"{receipt['test_id']} changed on the way")
        strangers = set(receipt["recipients"]) - set(attempt["recipients"])
        if strangers:
            report.violation("P5", f"{receipt['test_id']} went to {sorted(strangers)}")


def _check_delivered_was_received(
    attempts: dict[str, Record], histories: _Histories, sink: list[Record], report: Report
) -> None:
    received = {
        (receipt["test_id"], mailbox) for receipt in sink if not receipt.get("refused") for mailbox in receipt["recipients"]
    }
    test_ids = {record.get("message"): test_id for test_id, record in attempts.items() if record["state"] == "queued"}
    for message, accepted in histories.accepted.items():
        test_id = test_ids.get(message)
        if test_id is None:
            continue
        for mailbox, delivery in zip(accepted["recipients"], accepted["deliveries"], strict=True):
            kinds = {event["kind"] for event in histories.final.get(delivery, {}).values()}
            if "delivered" in kinds and (test_id, mailbox) not in received:
                report.violation("P1", f"{message}: {mailbox} is recorded as delivered, the sink never had it")


def _check_duplicates(
    sink: list[Record], histories: _Histories, kill_times: list[float], grace_seconds: float, report: Report
) -> None:
    deliveries = {
        mailbox: delivery
        for accepted in histories.accepted.values()
        for mailbox, delivery in zip(accepted["recipients"], accepted["deliveries"], strict=False)
    }
    copies: dict[tuple[str, str], list[float]] = defaultdict(list)
    for receipt in sink:
        if not receipt.get("refused"):
            for mailbox in receipt["recipients"]:
                copies[receipt["test_id"], mailbox].append(receipt["at"])
    report.counts["duplicates"] = 0
    for (test_id, mailbox), times in copies.items():
        unknown = histories.unknown.get(deliveries.get(mailbox, ""), 0)
        for before, after in zip(sorted(times), sorted(times)[1:], strict=False):
            report.counts["duplicates"] += 1
            if any(before - 0.5 <= kill <= min(after, before + grace_seconds) for kill in kill_times):
                continue
            if unknown > 0:
                unknown -= 1
                report.counts["duplicates_after_unknown"] += 1
                continue
            report.violation(
                "P2", f"{test_id}: {mailbox} got a copy {after - before:.3f} s after the first, and nothing was killed"
            )


def check_relay(relay: Any, sink: Any, client_path: Path, grace_seconds: float = GRACE_SECONDS, set_aside: int = 0) -> Report:
    """Judge a `harness.Relay` that runs and its `Recorder` from what they left."""
    return check(
        list(json_lines([client_path])), sink.received(), relay.events(), relay.queue(), relay.kill_times, grace_seconds,
        set_aside,
    )  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    optional = {}
    for name in ("kills", "queue"):
        path = folder / f"{name}.json"
        optional[name] = json.loads(path.read_text()) if path.exists() else []
    report = check(
        list(json_lines([folder / "client.jsonl"])),
        list(json_lines([folder / "sink.jsonl"])),
        list(json_lines(sorted((folder / "data" / "events").glob("*.jsonl")))),
        optional["queue"],
        optional["kills"],
    )
    print(report.as_json())
    return 1 if report.violation_count else 0


if __name__ == "__main__":
    sys.exit(main())
