"""The console away for a while: mail is taken and delivered as before, its events are there once it is back (rows 47, 48, 59).

Here console and relay are two services on one data folder, as on a machine that runs them so: `postbud console` and
`postbud relay --console unix:…`. `AWAY_SECONDS` is short in every run; `make soak` takes ten minutes.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.harness import POSTBUD, Recorder, is_zombie, wait_until
from tests.system.load import Load
from tests.system.product import Product
from tests.system.test_serve import send

AWAY_SECONDS = 8.0
SOAK_SECONDS = 600.0


class Pair(Product):
    """Console and relay apart; `process` is the relay's supervisor."""

    def __init__(self, folder: Path, sink: Recorder, **options: object) -> None:
        super().__init__(folder, next_hop=sink.next_hop, **options)  # type: ignore[arg-type]  # handed on
        self.console_telemetry_port = free_port()
        self.console: subprocess.Popen[bytes] | None = None

    def start_console(self, *, wait: bool = True) -> None:
        """Start the console."""
        address = {"POSTBUD__TELEMETRY__ADDRESS": f'"127.0.0.1:{self.console_telemetry_port}"'}
        with self.log_path.open("ab") as log:
            self.console = subprocess.Popen(
                [str(POSTBUD), "console", "--demo", "--data", str(self.folder)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, env=os.environ | self.environment | address,
            )  # fmt: skip
        if wait:
            wait_until((self.folder / "run" / "link.sock").exists, "the link is there", 60)
            wait_until((self.folder / "demo.json").exists, "the demo is seeded", 60)

    def kill_console(self) -> None:
        """Kill -9 of all its processes at once."""
        assert self.console is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.console.pid, signal.SIGKILL)
        self.console.wait(10)

    def start_relay(self) -> None:
        """Start the relay."""
        self.words = ["relay", "--console", f"unix:{self.folder}/run/link.sock", "--data", str(self.folder)]
        self.start(wait=False)
        wait_until(lambda: self.is_healthy() and self.greets(), "the relay takes mail", 60)
        self._learn_secrets()

    def close(self) -> None:
        """End both."""
        super().close()
        if self.console is not None and self.console.poll() is None:
            self.console.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.console.wait(30)
            self.kill_console()

    def load(self, path: Path, sessions: int = 4, pause_seconds: float = 0.05) -> Load:
        """Keep sending as the office devices."""
        server = self.server()
        return Load(
            self.ports["cleartext"], path, sessions=sessions, pause_seconds=pause_seconds,
            usernames=((server["username"], server["domain"]),),
        )  # fmt: skip

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until the queue is empty and the console has every event."""
        self.wait_drained(seconds)
        wait_until(self._has_shipped, "events are shipped", seconds)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Pair, Recorder]]:
    sink = Recorder(tmp_path)
    sink.start("--no-content")
    both = Pair(tmp_path / "demo", sink)
    try:
        both.start_console()
        both.start_relay()
        yield both, sink
    finally:
        both.close()
        sink.close()


@pytest.mark.row("47")
@pytest.mark.timeout(240)
def test_a_relay_that_starts_while_the_console_is_away_serves(pair: tuple[Pair, Recorder]) -> None:
    both, sink = pair
    both.wait_state(send(both, "before@dest.example")[0], "delivered")
    both.kill_console()
    assert both.stop() == 0
    both.start_relay()
    message, _ = send(both, "without@dest.example")
    sink.wait_for(lambda record: "without@dest.example" in record["recipients"])
    both.start_console()
    both.wait_state(message, "delivered", 60)


def away(pair: tuple[Pair, Recorder], client: Path, seconds: float) -> None:
    """Load; the console is killed for some time under it; nothing is lost, neither mail nor events."""
    both, sink = pair
    load = both.load(client).start()
    wait_until(lambda: load.counts["queued"] > 10, "mail is taken")
    both.kill_console()
    before = load.counts["queued"]
    time.sleep(seconds)
    meanwhile = load.counts["queued"] - before
    both.start_console()
    time.sleep(2.0)
    counts = load.stop()
    both.settle()
    report = both.check(sink, client)
    found = {"away_seconds": seconds, "taken_meanwhile": meanwhile, **counts, **json.loads(report.as_json())}
    print(json.dumps(found, indent=1))
    assert meanwhile > 10
    assert counts["refused"] == counts["unknown"] == counts["broken"] == 0
    assert not report.violations
    assert report.counts.get("duplicates", 0) == 0


@pytest.mark.row("47", "59")
@pytest.mark.timeout(300)
def test_a_console_killed_under_load_loses_no_mail_and_no_event(pair: tuple[Pair, Recorder], tmp_path: Path) -> None:
    away(pair, tmp_path / "client.jsonl", AWAY_SECONDS)


@pytest.mark.soak
@pytest.mark.row("47", "59")
def test_ten_minutes_without_a_console_lose_no_mail_and_no_event(pair: tuple[Pair, Recorder], tmp_path: Path) -> None:
    away(pair, tmp_path / "client.jsonl", SOAK_SECONDS)


class Killer:
    """Kills parts of a whole product at random, and sees that they live again."""

    def __init__(self, product: Product, dice: random.Random) -> None:
        self.product = product
        self.dice = dice
        self.counts: dict[str, int] = {}

    def strike(self) -> None:
        """Kill one part."""
        part = self.dice.choices(
            ["worker", "console-link", "console-pages", "console-jobs", "supervisor", "everything"], [35, 30, 10, 5, 8, 12]
        )[0]
        self.counts[part] = self.counts.get(part, 0) + 1
        if part in ("supervisor", "everything"):
            if part == "supervisor":
                self.product.kill(self.product.pid)
                assert self.product.process is not None
                self.product.process.wait(10)
                time.sleep(self.dice.random() * 2)  # its programs end by themselves (row 11); kill_all makes sure
            self.product.kill_all()
            self.product.start(wait=False)
            wait_until(self.product.greets, "the relay takes mail", 60)
            return
        found = self.product.pids(part)
        if found:
            victim = self.dice.choice(found)
            self.product.kill(victim)
            wait_until(lambda: is_zombie(victim), "the victim is dead", 10, every=0.01)


def kill_loop(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kill parts of `postbud serve` under load; give the invariant checker's report."""
    sink = Recorder(folder, delay_seconds=0.005)
    sink.start("--no-content")
    product = Product(folder / "demo", next_hop=sink.next_hop)
    dice = random.Random(seed)
    client = folder / "client.jsonl"
    try:
        product.start()
        server = product.server()
        load = Load(
            product.ports["cleartext"], client, sessions=4, pause_seconds=0.03,
            usernames=((server["username"], server["domain"]),),
        ).start()  # fmt: skip
        killer = Killer(product, dice)
        for _ in range(kills):
            time.sleep(dice.uniform(0.1, 1.5))
            killer.strike()
        time.sleep(1.0)
        counts = load.stop()
        product.wait_whole(120)
        product.wait_drained(300)
        wait_until(product._has_shipped, "events are shipped", 120)
        time.sleep(1.0)
        report = product.check(sink, client, 3.0)
        status = product.stop()
    finally:
        product.close()
        sink.close()
    return {"kills": killer.counts, "client": counts, "exit_status": status, **json.loads(report.as_json())}


@pytest.mark.row("8", "10", "48")
@pytest.mark.timeout(400)
def test_random_kills_of_every_part_lose_nothing(tmp_path: Path) -> None:
    report = kill_loop(tmp_path, 14, seed=11)
    print(json.dumps(report, indent=1))
    assert not report["violations"]
    assert report["client"]["queued"] > 50  # type: ignore[index]  # a dictionary


@pytest.mark.soak
@pytest.mark.row("8", "10", "48")
def test_three_hundred_random_kills_of_every_part_lose_nothing(tmp_path: Path) -> None:
    report = kill_loop(tmp_path, 300, seed=int(time.time()))
    print(json.dumps(report, indent=1))
    assert not report["violations"]
