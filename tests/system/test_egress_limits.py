"""Limits of a site hold across a node's workers: against a model, and with four processes that are killed in between."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from postbud.egress import slots
from postbud.egress.limits import NodeLimits
from tests.system import limits_child
from tests.system.limits_child import CONNECTIONS, RATES

WORKERS = range(4)
KEYS = ("mx.example|203.0.113.5", "mx.example|", "b|c")
RATE_OF = dict(zip(KEYS, ((4.0, 1.0), (2.0, 3.0), (0.125, 1.0)), strict=True))  # their intervals are exact in binary


def die(limits: NodeLimits) -> None:
    """Leave as kill -9 does: the kernel closes, nothing is cleared."""
    assert limits._slots is not None
    limits._slots.close()
    limits._slots = None


class Node(RuleBasedStateMachine):
    """Workers of one file do what the plain counts of a model do."""

    folder: Path

    @initialize()
    def start(self) -> None:
        self.path = self.folder / f"limits-{time.monotonic_ns()}"
        self.now = 1000.0
        self.living: dict[int, NodeLimits] = {}
        self.has: dict[tuple[int, str], int] = {}
        self.wanting: set[tuple[int, str]] = set()
        self.arrivals: dict[str, float] = {}

    def teardown(self) -> None:
        for limits in getattr(self, "living", {}).values():
            limits.close()
        if hasattr(self, "path"):
            self.path.unlink(missing_ok=True)

    def worker(self, number: int) -> NodeLimits:
        if number not in self.living:
            self.living[number] = NodeLimits(self.path, number * 21, lambda: self.now)
        return self.living[number]

    def total(self, key: str) -> int:
        return sum(count for (_, other), count in self.has.items() if other == key)

    @rule(number=st.sampled_from(WORKERS), key=st.sampled_from(KEYS), limit=st.integers(0, 6))
    def acquire(self, number: int, key: str, limit: int) -> None:
        got = self.worker(number).acquire(key, limit)
        assert got == (self.total(key) < limit)
        self.has[number, key] = self.has.get((number, key), 0) + got

    @rule(number=st.sampled_from(WORKERS), key=st.sampled_from(KEYS))
    def release(self, number: int, key: str) -> None:
        if self.has.get((number, key), 0):
            self.worker(number).release(key)
            self.has[number, key] -= 1
        else:
            with pytest.raises(ValueError, match="no connection"):
                self.worker(number).release(key)

    @rule(number=st.sampled_from(WORKERS), key=st.sampled_from(KEYS), wants=st.booleans())
    def want(self, number: int, key: str, wants: bool) -> None:
        self.worker(number).want(key, wants)
        (self.wanting.add if wants else self.wanting.discard)((number, key))

    @rule(number=st.sampled_from(WORKERS), key=st.sampled_from(KEYS))
    def reserve(self, number: int, key: str) -> None:
        rate, burst = RATE_OF[key]
        arrival = max(self.now, self.arrivals.get(key, 0.0))
        expected = max(0.0, arrival - (burst - 1) / rate - self.now)
        assert self.worker(number).reserve(key, rate, burst) == expected
        if expected == 0.0:
            self.arrivals[key] = arrival + 1 / rate

    @rule(eighths=st.integers(0, 20))
    def time_passes(self, eighths: int) -> None:
        self.now += eighths / 8

    @precondition(lambda self: self.living)
    @rule(data=st.data(), killed=st.booleans())
    def end(self, data: st.DataObject, killed: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.living)))
        limits = self.living.pop(number)
        (die if killed else NodeLimits.close)(limits)
        self.has = {slot: count for slot, count in self.has.items() if slot[0] != number}
        self.wanting = {slot for slot in self.wanting if slot[0] != number}

    @rule(number=st.sampled_from(WORKERS), key=st.sampled_from(KEYS), limit=st.integers(1, 6))
    def look(self, number: int, key: str, limit: int) -> None:
        own = self.has.get((number, key), 0)
        assert self.worker(number).held(key) == (own, self.total(key))
        engaged = {other for other in WORKERS if self.has.get((other, key), 0) or (other, key) in self.wanting}
        wanting = {other for other, wanted in self.wanting if wanted == key and other != number}
        starving = {other for other in wanting if not self.has.get((other, key), 0)}
        expected = bool(wanting) and own > 1 and own > math.ceil(limit / len(engaged))
        assert self.worker(number).should_yield(key, limit, own) == expected
        assert self.worker(number).starves(key) == (own > 0 and bool(starving))


def test_workers_of_one_file_count_as_the_model_counts(tmp_path: Path) -> None:
    machine = type("NodeHere", (Node,), {"folder": tmp_path})
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)  # type: ignore[attr-defined]
    machine.TestCase("runTest").debug()  # type: ignore[attr-defined]


# -- real processes ---------------------------------------------------------------------------------------------------------


class Child:
    """One life of a worker."""

    def __init__(self, folder: Path, number: int, life: int, seed: int) -> None:
        self.log = folder / f"log-{number}-{life}"
        self.number, self.life = number, life
        self.ended_at = math.inf
        command = [sys.executable, limits_child.__file__, str(folder / "limits"), str(number), str(self.log), str(seed)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def kill(self) -> None:
        self.ended_at = time.monotonic()
        self.process.kill()
        self.reap()

    def reap(self) -> None:
        assert self.process.stderr is not None
        errors = self.process.communicate()[1]
        assert self.process.returncode == -signal.SIGKILL, errors.decode()

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []


def run_with_kills(folder: Path, seconds: float, dice: random.Random) -> list[Child]:
    """Keep four workers alive, kill one at random again and again, at last all; give all lives."""
    lives = [Child(folder, number, 0, dice.getrandbits(32)) for number in WORKERS]
    now = list(lives)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        time.sleep(dice.uniform(0.05, 0.3))
        if dice.random() < 0.7:
            victim = dice.choice(now)
            if victim.process.poll() is None:
                victim.kill()
        for child in list(now):
            if child.process.poll() is not None:
                if child.ended_at == math.inf:
                    child.reap()
                now.remove(child)
                now.append(Child(folder, child.number, child.life + 1, dice.getrandbits(32)))
                lives.append(now[-1])
    for child in now:
        child.kill()
    return lives


def most_at_once(lives: list[Child], site: str) -> int:
    """Give the most connections that were surely held at one instant."""
    changes: list[tuple[float, int]] = []
    for child in lives:
        held: dict[str, float] = {}
        ended_at = child.ended_at
        for word, *rest in child.lines():
            if word == "x":
                ended_at = float(rest[0])
            elif word == "+" and rest[0] == site:
                held[rest[1]] = float(rest[2])
            elif word == "-" and rest[0] == site:
                changes += [(held.pop(rest[1]), 1), (float(rest[2]), -1)]
        for since in held.values():
            changes += [(since, 1), (max(since, ended_at), -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def test_five_connections_and_five_per_second_hold_across_four_workers_that_are_killed(tmp_path: Path) -> None:
    lives = run_with_kills(tmp_path, 8.0, random.Random())
    by_own_hand = sum(any(line[0] == "x" for line in child.lines()) for child in lives)
    print(f"{len(lives)} lives of {len(WORKERS)} workers, {by_own_hand} ended inside the lock")
    assert len(lives) > 2 * len(WORKERS)
    for site, limit in CONNECTIONS.items():
        assert most_at_once(lives, site) == limit  # never over, and all of it of use
    for site, (rate, burst) in RATES.items():
        turns = sorted(float(line[2]) for child in lives for line in child.lines() if line[0] == "r" and line[1] == site)
        print(f"{site}: {len(turns)} turns in {turns[-1] - turns[0]:.2f} s at {rate}/s, burst {burst:.0f}")
        for (first, earlier), (last, later) in combinations(enumerate(turns), 2):
            assert last - first + 1 <= rate * (later - earlier + 2e-6) + burst, f"turns {first} to {last}"
        assert len(turns) > rate * (turns[-1] - turns[0]) / 10
    # All were killed while they held: nothing is left of it.
    limits = NodeLimits(tmp_path / "limits", 0, time.monotonic)
    for site, limit in CONNECTIONS.items():
        assert limits.held(site) == (0, 0)
        assert [limits.acquire(site, limit) for _ in range(limit + 1)] == [True] * limit + [False]
    limits.close()


HOLDING_FIVE = """
import sys, time
from pathlib import Path
from postbud.egress.limits import NodeLimits
limits = NodeLimits(Path(sys.argv[1]), 63, time.monotonic)
assert all(limits.acquire("site", 5) for _ in range(5))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_worker_that_dies_with_connections_gives_them_to_the_others_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDING_FIVE, str(tmp_path / "limits")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    limits = NodeLimits(tmp_path / "limits", 0, time.monotonic)
    assert not limits.acquire("site", 5)
    assert limits.held("site") == (0, 5)
    process.kill()
    process.communicate()
    assert limits.held("site") == (0, 0)
    assert all(limits.acquire("site", 5) for _ in range(5))
    assert not limits.acquire("site", 5)
    limits.close()


# -- the file ---------------------------------------------------------------------------------------------------------------


def test_a_number_is_given_to_one_living_worker_only(tmp_path: Path) -> None:
    limits = NodeLimits(tmp_path / "limits", 7, time.monotonic)
    limits.acquire("site", 1)
    with pytest.raises(BlockingIOError):
        NodeLimits(tmp_path / "limits", 7, time.monotonic)
    assert limits.held("site") == (1, 1)
    limits.close()
    limits = NodeLimits(tmp_path / "limits", 7, time.monotonic)
    assert limits.held("site") == (0, 0)
    limits.close()
    for number in (-1, slots.WORKERS):
        with pytest.raises(ValueError, match="is not one of"):
            NodeLimits(tmp_path / "limits", number, time.monotonic)


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: b"junk",
        lambda octets: b"",
        lambda octets: octets[:100],
        lambda octets: octets + b"more",
        lambda octets: octets[:8] + b"\xff" + octets[9:],  # another version
    ],
)
def test_a_file_of_another_layout_is_replaced(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "run" / "limits"
    NodeLimits(path, 0, time.monotonic).close()
    path.write_bytes(change(path.read_bytes()))
    one, other = NodeLimits(path, 0, time.monotonic), NodeLimits(path, 1, time.monotonic)
    assert one.acquire("site", 1)
    assert not other.acquire("site", 1)
    one.close()
    assert other.acquire("site", 1)
    other.close()
    assert path.stat().st_blocks * 512 >= path.stat().st_size, "the file has holes: a full disk would kill the process"


def test_a_file_full_of_rubbish_behind_its_header_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    NodeLimits(path, 0, time.monotonic).close()
    octets = bytearray(b"\xff" * path.stat().st_size)  # each arrival time is NaN, everybody holds 65535 and wants more
    octets[:4096] = path.read_bytes()[:4096]
    path.write_bytes(octets)
    limits = NodeLimits(path, 0, time.monotonic)
    assert limits.acquire("site", 1)
    assert not limits.acquire("site", 1)
    assert limits.reserve("site", 1.0) == 0.0
    assert limits.reserve("site", 1.0) > 0
    limits.close()


def test_when_no_row_is_free_the_answer_is_wait_until_one_is(tmp_path: Path) -> None:
    one, other = (NodeLimits(tmp_path / "limits", number, time.monotonic) for number in (0, 1))
    count = next(number for number in range(2 * slots.ROWS) if not one.acquire(f"site {number}", 5))
    print(f"{count} of {slots.ROWS} rows were in use when one was refused")
    assert count > 0.4 * slots.ROWS
    site = f"site {count}"
    assert not other.acquire(site, 5)
    assert other.reserve(site, 100.0) > 0
    other.want(site, True)
    assert other.held(site) == (0, 0)
    for number in range(count // 2):
        one.release(f"site {number}")
    die(one)  # what it still held is nobody's
    assert other.acquire(site, 5)
    assert other.reserve(site, 100.0) == 0.0
    assert other.held(site) == (1, 1)
    other.close()


def test_rows_of_rates_that_are_used_up_are_kept_and_the_others_used_again(tmp_path: Path) -> None:
    now = 1000.0
    limits = NodeLimits(tmp_path / "limits", 0, lambda: now)
    assert limits.reserve("slow", 0.001) == 0.0
    for number in range(3 * slots.ROWS):
        now += 0.001
        assert limits.reserve(f"site {number}", 1000.0) == 0.0
    assert limits.reserve("slow", 0.001) > 900
    limits.close()


FULL_DISK = """
import sys, time
from pathlib import Path
from postbud.egress.limits import NodeLimits
from postbud.egress import slots
folder, now = Path(sys.argv[1]), 0.0
limits = NodeLimits(folder / "limits", 0, lambda: now)
assert not limits.acquire("site", 5) and limits.reserve("site", 5.0) > 0 and limits.held("site") == (0, 0)
limits.want("site", True)
limits.release("site")
assert not limits.should_yield("site", 5, 0)
(folder / "ballast").unlink()
assert not limits.acquire("site", 5)  # the disk is looked at once a second
now = 1.5
assert limits.acquire("site", 5) and limits.reserve("site", 5.0) == 0.0
try:
    with (folder / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(65536))
            ballast.flush()
except OSError:
    pass
for number in range(slots.ROWS):
    limits.acquire(f"site {number}", 5)
    limits.reserve(f"site {number}", 5.0)
limits.close()
again = NodeLimits(folder / "limits", 0, lambda: now)
assert again.acquire("site", 5)
print("lives")
"""


def test_a_full_disk_makes_workers_wait_and_kills_none(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        (disk / "ballast").write_bytes(bytes(5 * 1024 * 1024))
        run = subprocess.run([sys.executable, "-c", FULL_DISK, str(disk)], capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert (run.returncode, run.stdout) == (0, "lives\n"), run.stderr


# -- clocks and rates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-1e9, -3600.0, -1.0, 3600.0, 1e9])
def test_a_clock_that_jumps_blocks_a_rate_for_one_interval_at_most(tmp_path: Path, jump: float) -> None:
    now = 1e9
    one, other = (NodeLimits(tmp_path / "limits", number, lambda: now) for number in (0, 1))
    assert [one.reserve("site", 5.0, 3.0) == 0.0 for _ in range(4)] == [True] * 3 + [False]
    now += jump
    wait = other.reserve("site", 5.0, 3.0)
    assert 0 <= wait <= 0.2 + 1e-6
    now += wait + 1e-6
    granted = 0
    while one.reserve("site", 5.0, 3.0) == 0.0:
        granted += 1
    assert 1 <= granted <= 3
    one.close()
    other.close()


def test_a_rate_that_rises_is_not_held_back_by_what_a_slow_one_left(tmp_path: Path) -> None:
    now = 0.0
    limits = NodeLimits(tmp_path / "limits", 0, lambda: now)
    assert limits.reserve("site", 1 / 60) == 0.0
    assert limits.reserve("site", 1 / 60) == pytest.approx(60.0)
    assert limits.reserve("site", 5.0) == pytest.approx(0.2)
    now = 0.2
    assert limits.reserve("site", 5.0) == 0.0
    assert limits.reserve("site", 0.0) == 0.0, "a rate of 0 is no limit"
    limits.close()


def test_it_takes_microseconds(tmp_path: Path) -> None:
    one, other = (NodeLimits(tmp_path / "limits", number, time.monotonic) for number in (0, 1))

    def measure(what: str, action: Callable[[], object], times: int = 20_000) -> None:
        started_at = time.perf_counter()
        for _ in range(times):
            action()
        print(f"{what:<44} {(time.perf_counter() - started_at) / times * 1e6:6.2f} µs")

    def acquire_and_release() -> None:
        one.acquire("site", 5)
        one.release("site")

    measure("acquire and release", acquire_and_release)
    assert [one.acquire("site", 5) for _ in range(3)] + [other.acquire("site", 5) for _ in range(2)] == [True] * 5
    measure("acquire, refused", lambda: one.acquire("site", 5))
    measure("should_yield, nobody waits", lambda: one.should_yield("site", 5, 5))
    other.want("site", True)
    measure("should_yield, somebody waits", lambda: one.should_yield("site", 5, 5))
    measure("held", lambda: one.held("site"))
    measure("reserve, granted", lambda: one.reserve("fast", 1e9, 10.0))
    one.reserve("slow", 0.001)
    measure("reserve, to wait", lambda: one.reserve("slow", 0.001))
    one.close()
    other.close()


def test_who_reads_while_another_gives_back_never_sees_less_than_is_held(tmp_path: Path) -> None:
    """A slot is written by one store: `struct.pack_into` would show a zero before the value."""
    here = slots.Slots(tmp_path / "limits", 0)
    command = (
        "import sys; from pathlib import Path; from postbud.egress.slots import Slots\n"
        "slots = Slots(Path(sys.argv[1]), 1); slots.set_held(5, 2); print(flush=True)\n"
        "while True: slots.set_held(5, 3); slots.set_held(5, 2)"
    )
    child = subprocess.Popen([sys.executable, "-c", command, str(tmp_path / "limits")], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        seen: set[int] = set()
        ends_at = time.monotonic() + 1.0
        while time.monotonic() < ends_at:
            seen.update(here.counts(5)[1] for _ in range(1000))
    finally:
        child.kill()
        child.communicate()
        here.close()
    assert seen == {2, 3}
