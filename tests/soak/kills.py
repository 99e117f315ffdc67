"""Random kill -9 under load, and then the invariant checker.

Run: python -m tests.soak.kills [--kills 1000] [--workers 2] [--seed 1] [--folder DIR]

Most kills hit one worker, which the supervisor must start again; some hit the supervisor alone, some everything at once;
then the test starts the relay again on the same data. In the end the queue drains, and the checker compares the client's
log, the queue, the sink's log and the events. Prints a JSON report; ends with status 1 when a promise was broken.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, is_zombie, wait_until
from tests.system.invariants import check_relay
from tests.system.load import Load

SINK_DELAY_SECONDS = 0.005  # widens the moment between final dot and answer, where duplicates come from
GRACE_SECONDS = 3.0


class Killer:
    """Kills what it is told, notes when, and sees that the relay lives again."""

    def __init__(self, relay: Relay, dice: random.Random) -> None:
        self._relay, self._dice = relay, dice
        self.counts = {"worker": 0, "supervisor": 0, "everything": 0}

    def strike(self) -> None:
        """Kill once."""
        kind = self._dice.choices(["worker", "supervisor", "everything"], [90, 3, 7])[0]
        workers = self._relay.workers()
        if kind == "worker" and workers:
            victim = self._dice.choice(workers)
            self._relay.kill(victim)
            wait_until(lambda: is_zombie(victim), "the victim is dead", 5, every=0.01)
            wait_until(self._relay.workers, "the supervisor starts another", 30)
        elif kind == "supervisor":
            self._relay.kill(self._relay.pid)
            self._relay.process.wait(10)  # type: ignore[union-attr]  # it was started
            # workers without a supervisor end by themselves (row 11); kill_all makes sure, and notes the time
            time.sleep(self._dice.random() * 2)
            self._relay.kill_all()
            self._relay.start()
        else:
            kind = "everything"
            self._relay.kill_all()
            self._relay.start()
        self.counts[kind] += 1


def run(
    kills: int, folder: Path, *, workers: int = 2, seed: int = 1, pause: tuple[float, float] = (0.1, 1.0)
) -> dict[str, Any]:
    """Do it; give the report."""
    dice = random.Random(seed)
    sink = Recorder(folder, delay_seconds=SINK_DELAY_SECONDS)
    sink.start("--no-content")
    relay = Relay(folder, Settings(workers=workers, next_hop=sink.next_hop))
    began = time.monotonic()
    try:
        relay.start()
        killer = Killer(relay, dice)
        load = Load(relay.ports["cleartext"], folder / "client.jsonl", sessions=6, pause_seconds=0.02).start()
        for number in range(kills):
            time.sleep(dice.uniform(*pause))
            killer.strike()
            if number % 100 == 99:
                print(f"{number + 1} kills, {load.counts}", file=sys.stderr, flush=True)
        time.sleep(1.0)
        client = load.stop()
        relay.wait_ready(60)
        relay.wait_drained(300)
        time.sleep(1.0)  # the last events are shipped
        (folder / "kills.json").write_text(json.dumps(relay.kill_times))
        report = check_relay(relay, sink, folder / "client.jsonl", GRACE_SECONDS)
        status = relay.stop()
    finally:
        relay.close()
        sink.close()
    return {
        "kills": killer.counts, "client": client, "worst_seconds_to_250": round(load.worst_seconds, 3), "exit_status": status,
        "seconds": round(time.monotonic() - began), "seed": seed, **json.loads(report.as_json()),
    }  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path)
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = words.folder or Path(tempfile.mkdtemp(prefix="postbud-kills-", dir=os.environ.get("TMPDIR", "/tmp")))
    report = run(words.kills, folder, workers=words.workers, seed=words.seed)
    print(json.dumps(report | {"folder": str(folder)}, indent=2))
    return 1 if report["violation_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
