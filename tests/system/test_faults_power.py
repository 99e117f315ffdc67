"""Power loss under a whole relay (rows 13, 15): its system calls are recorded while it works, and cut at many moments.

Each cut is laid out as a data folder (model and reader of the trace: `test_spool_power`) and a relay is started on it. What the
client and the sink saw until then, and the sink after, must agree with what that relay says: the invariant checker.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, children_of, json_lines
from tests.system.invariants import check
from tests.system.load import Load
from tests.system.test_faults_disk import restarts
from tests.system.test_spool_damage import strace
from tests.system.test_spool_power import Call, Disk, parse

Make = Callable[..., Pair]
CALLS = "pwrite64,write,fsync,fdatasync,ftruncate,rename,unlink,openat"
CUTS = 5
NOT_KEPT = ("-shm", "/inflight", ".sock", ".beat", "/hourly-caps")  # mapped, or nothing that outlives its process


def recorded(relay: Relay, trace: Path, act: Callable[[], None]) -> list[Call]:
    """Give what a relay, from its first start to its stop, did to its data folder."""
    command = strace("-y", "-xx", "-ttt", "-s", "400000", "-e", f"trace={CALLS}")
    command[command.index("/dev/null")] = str(trace)
    relay.start(wrapper=tuple(command))
    act()
    supervisor = children_of(relay.pid)[0]
    os.kill(supervisor, signal.SIGTERM)
    assert relay.process is not None
    assert relay.process.wait(30) == 0
    calls = parse(trace.read_text())
    for call in calls:
        call.path = str(relay.folder / call.path) if call.path else ""
        call.target = str(relay.folder / call.target) if call.target else ""
    return [call for call in calls if call.path.startswith(f"{relay.data}/") and not call.path.endswith(NOT_KEPT)]


def lay_out(files: dict[str, bytes], old: Path, new: Path) -> None:
    for name, octets in files.items():
        path = new / Path(name).relative_to(old)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        path.chmod(0o600)


def seen_until(at: float, client: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the client's log as it was at a moment: what had no answer yet is unknown."""
    begun = [record for record in client if record["at"] <= at]
    return [record if record["replied_at"] <= at else record | {"state": "unknown", "message": None} for record in begun]


@pytest.mark.row("13", "15")
def test_power_loss_at_any_moment_keeps_every_promise_of_the_relay(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair(start=False)

    def work() -> None:
        load = Load(
            relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=3, pause_seconds=0.15, sizes=(1024, 4096, 270_000)
        ).start()
        time.sleep(2.0)
        load.stop()
        time.sleep(0.5)

    calls = recorded(relay, tmp_path / "trace", work)
    client, receipts = list(json_lines([tmp_path / "client.jsonl"])), sink.received()
    first = next(number for number, call in enumerate(calls) if call.returned_at > client[0]["at"])
    dice = random.Random(13)
    cuts = sorted(dice.sample(range(first, len(calls)), CUTS))
    disk = Disk()
    after: list[tuple[float, Relay, Recorder]] = []
    with ExitStack() as stack:
        for number, call in enumerate(calls):
            disk.feed(call)
            if number in cuts:
                folder = tmp_path / f"cut-{number}"
                its_sink = Recorder(folder)
                its_sink.start()
                stack.callback(its_sink.close)
                again = Relay(folder, Settings(next_hop=its_sink.next_hop, relay={"retry_max_seconds": 1}))
                stack.callback(again.kill_all)
                lay_out(disk.crash(dice), relay.data, again.data)
                again.start(wait=False)
                after.append((call.returned_at, again, its_sink))
        for _, again, _ in after:
            again.wait_ready()
            again.wait_drained()
        time.sleep(0.7)
        promised = 0
        for at, again, its_sink in after:
            seen = [receipt for receipt in receipts if receipt["at"] <= at] + its_sink.received()
            report = check(seen_until(at, client), seen, again.events(), again.queue(), [at])
            assert not report.violations, (again.folder.name, report.as_json())
            assert restarts(again) == 0
            promised += report.counts["promised"]
        assert promised > 20
