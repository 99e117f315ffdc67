"""Disks that are full, fail or forget, under a running relay; each ends in the invariant checker (rows 14, 17-19).

Mounting and tracing need root. What a full disk holds that the relay must still write: events, outcomes, and all that a
start makes anew.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from postbud.spool.sqlite import Spool
from postbud.spool.values import SpoolUnusable
from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, json_lines, wait_until
from tests.system.invariants import check_relay
from tests.system.load import Load
from tests.system.spool_child import SMALL
from tests.system.test_spool_damage import flip, strace
from tests.unit.link.test_ship import Store, numbers, shipper

Make = Callable[..., Pair]
MIB = 1024 * 1024
RESERVES = f"[spool]\nreserve_octets = {8 * MIB}\nreserve_inodes = 10\n"

QUICK: dict[str, object] = {"retry_max_seconds": 1}


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """Mount a tmpfs with the given options on a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine mounts no tmpfs")
        mounted.append(folder)
        return folder

    yield mount
    for each in mounted:
        subprocess.run(["umount", "-l", str(each)], check=True)


def load(relay: Relay, folder: Path, **more: object) -> Load:
    settings: dict[str, object] = {"sessions": 4, "pause_seconds": 0.02, "messages_per_session": 5} | more
    return Load(relay.ports["cleartext"], folder / "client.jsonl", **settings)  # type: ignore[arg-type]


def finish(relay: Relay, sink: Recorder, folder: Path, set_aside: int = 0) -> dict[str, int]:
    """Wait until all is final, check P1-P6, give the counts; a run in which nothing was promised shows nothing."""
    relay.wait_ready()
    relay.wait_drained()
    time.sleep(0.7)
    report = check_relay(relay, sink, folder / "client.jsonl", set_aside=set_aside)
    assert not report.violations, report.as_json()
    assert report.counts["promised"] > 0
    assert report.counts["sink_messages"] > 0
    assert report.counts["events_delivered"] == report.counts["promised"] - set_aside + _unconfirmed(report.counts)
    return report.counts


def _unconfirmed(counts: dict[str, int]) -> int:
    """Deliveries of messages that were stored without their 250 being read; none where no answer was lost."""
    return counts["events_delivered"] - counts["promised"] + counts["set_aside"] if counts["client_unknown"] else 0


def take_all(path: Path) -> Path:
    """Fill the disk to its last octet."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def take_inodes(folder: Path) -> list[Path]:
    """Make files until no more can be."""
    made: list[Path] = []
    with suppress(OSError):
        while True:
            (folder / f"file-{len(made)}").touch()
            made.append(folder / f"file-{len(made)}")
    return made


@contextmanager
def failing(pid: int, folder: Path, calls: str, error: str, *paths: Path) -> Iterator[None]:
    """Let a process's system calls on files fail meanwhile; some must have."""
    command = strace("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}", "-q", "-p", str(pid))
    command[command.index("/dev/null")] = str(folder / "trace")
    command += [word for path in paths for word in ("-P", str(path))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        wait_until(lambda: "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text(), "it is traced")
        try:
            yield
        finally:
            tracer.terminate()
    assert "INJECTED" in (folder / "trace").read_text()


def restarts(relay: Relay) -> int:
    return relay.log_path.read_text().count("worker_died")


@pytest.mark.row("18", "19")
@pytest.mark.parametrize("end", ["killed on a full disk", "stopped before it filled"])
def test_a_relay_that_starts_on_a_full_disk_keeps_what_it_has_and_takes_mail_when_there_is_room(
    pair: Make, small_disk: Callable[[Path, str], Path], tmp_path: Path, end: str
) -> None:
    data = small_disk(tmp_path / "data", "size=40m")  # its own files and a long WAL, and twice the reserve beside them
    relay, sink = pair(Settings(extra=RESERVES, relay=QUICK))
    sink.close()  # so that all waits
    before = load(relay, tmp_path).start()
    time.sleep(1.0)
    assert before.stop()["queued"] > 10
    if end == "killed on a full disk":
        take_all(data / "filler")
        relay.kill_all()
    else:
        relay.stop()
        take_all(data / "filler")
    relay.start()
    during = load(relay, tmp_path).start()
    sink.start()
    sink.wait_for(lambda _: True, count=before.counts["queued"] // 2)  # deliveries go on, and are recorded
    assert during.stop()["queued"] == 0
    assert during.counts["refused"] > 0
    (data / "filler").unlink()
    after = load(relay, tmp_path).start()
    wait_until(lambda: after.counts["queued"] > 0, "mail is taken again")
    after.stop()
    assert finish(relay, sink, tmp_path)["duplicates"] == 0
    assert restarts(relay) == 0
    assert "Traceback" not in relay.log_path.read_text()


@pytest.mark.row("18")
async def test_a_spool_that_finds_no_room_at_all_says_so_and_opens_when_there_is_some(
    small_disk: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    folder = small_disk(tmp_path / "disk", "size=4m") / "spool"
    await (await Spool.open(folder, SMALL)).close()
    (folder / "reserve").unlink()
    filler = take_all(tmp_path / "disk" / "filler")
    for _ in range(2):
        with pytest.raises(SpoolUnusable, match="the disk is full"):
            await Spool.open(folder, SMALL)
    filler.unlink()
    await (await Spool.open(folder, SMALL)).close()


@pytest.mark.row("18")
def test_a_disk_that_fills_under_load_refuses_mail_and_delivers_what_it_has_and_ships_each_event_once(
    pair: Make, small_disk: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    data = small_disk(tmp_path / "data", "size=32m")
    relay, sink = pair(Settings(extra=RESERVES, relay=QUICK))
    running = load(relay, tmp_path, sizes=(4096, 300_000)).start()
    wait_until(lambda: running.counts["queued"] > 10, "mail is taken")
    filler = take_all(data / "filler")
    wait_until(lambda: running.counts["refused"] > 3, "mail is refused")
    wait_until(lambda: not relay.queue(), "what was taken is delivered, and that is recorded")
    time.sleep(1.0)
    queued = running.counts["queued"]
    time.sleep(0.5)
    assert running.counts["queued"] == queued
    filler.unlink()
    wait_until(lambda: running.counts["queued"] > queued + 5, "mail is taken again")
    running.stop()
    assert finish(relay, sink, tmp_path)["duplicates"] == 0
    replies = {line["reply"][:5] for line in json_lines([tmp_path / "client.jsonl"]) if line["state"] == "refused"}
    assert replies == {"4.3.1"}
    assert not list((relay.data / "spool" / "worker-0" / "incoming").iterdir())
    assert restarts(relay) == 0


@pytest.mark.row("19")
@pytest.mark.parametrize("files", [("spool.db-wal",), ("spool.db", "worker-0.jsonl")], ids=["log", "tables and events"])
def test_no_room_for_some_files_alone_loses_nothing_and_sends_nothing_twice(
    pair: Make, tmp_path: Path, files: list[str]
) -> None:
    relay, sink = pair(Settings(relay=QUICK))
    (worker,) = relay.workers()
    before = load(relay, tmp_path).start()
    paths = [wait_until(lambda file=file: next(relay.data.rglob(file), None), "the file is there") for file in files]
    with failing(worker, tmp_path, "write,pwrite64", "ENOSPC", *paths):
        time.sleep(0.7)
        before.stop()
        time.sleep(1.5)  # the time of a checkpoint
    after = load(relay, tmp_path).start()
    wait_until(lambda: after.counts["queued"] > 5, "mail is taken again")
    after.stop()
    counts = finish(relay, sink, tmp_path)
    assert counts["duplicates"] == 0
    assert restarts(relay) == 0
    assert (counts["client_refused"] > 0) == ("spool.db-wal" in files)
    assert ("events wait" in relay.log_path.read_text()) == ("worker-0.jsonl" in files)


@pytest.mark.row("19")
def test_a_disk_out_of_inodes_refuses_mail_and_delivers_what_it_has(
    pair: Make, small_disk: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    data = small_disk(tmp_path / "data", "size=64m,nr_inodes=150")
    relay, sink = pair(Settings(extra=RESERVES, relay=QUICK))
    running = load(relay, tmp_path, sizes=(4096, 300_000)).start()
    wait_until(lambda: running.counts["queued"] > 10, "mail is taken")
    fillers = take_inodes(data)
    wait_until(lambda: running.counts["refused"] > 3, "mail is refused")
    wait_until(lambda: not relay.queue(), "what was taken is delivered")
    for filler in fillers:
        filler.unlink()
    queued = running.counts["queued"]
    wait_until(lambda: running.counts["queued"] > queued + 5, "mail is taken again")
    running.stop()
    assert finish(relay, sink, tmp_path)["duplicates"] == 0
    assert restarts(relay) == 0


@pytest.mark.row("19")
async def test_events_that_find_half_the_room_they_need_are_shipped_whole_and_once_when_there_is_more(
    small_disk: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    folder = small_disk(tmp_path / "events", "size=192k")
    one = shipper(folder, Store(2500))
    assert [await one.ship_once() for _ in range(2)] == [1000, 1000]
    filler = take_all(folder / "filler")
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 8192)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            await one.ship_once()
        assert numbers(folder)[-1] == 2000
    filler.unlink()
    assert await one.ship_once() == 500
    assert numbers(folder) == list(range(1, 2501))


@pytest.mark.row("17")
def test_a_body_that_cannot_be_read_is_set_aside_and_all_others_are_delivered(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair(Settings(relay=QUICK))
    sink.close()
    running = load(relay, tmp_path, sizes=(4096, 300_000), recipients=(1, 2)).start()
    wait_until(lambda: running.counts["queued"] > 20, "mail waits")
    running.stop()
    (worker,) = relay.workers()
    contents = relay.data / "spool" / "worker-0" / "content"
    victim, *others = contents.iterdir()
    assert others
    with failing(worker, tmp_path, "read", "EIO", victim):
        sink.start()
        wait_until(lambda: quarantined(relay), "it is set aside")
    counts = finish(relay, sink, tmp_path, set_aside=len(quarantined(relay)))
    assert counts["set_aside"] in (1, 2)
    assert len({event["message"] for event in quarantined(relay)}) == 1
    assert alarm(relay) >= counts["set_aside"]
    assert restarts(relay) == 0


@pytest.mark.row("14")
def test_damage_to_the_spool_costs_what_it_hit_with_an_event_and_all_else_is_delivered(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair(Settings(relay=QUICK))
    sink.close()
    running = load(relay, tmp_path, sizes=(4096, 300_000), recipients=(1,)).start()
    wait_until(lambda: running.counts["queued"] > 30, "mail waits")
    running.stop()
    wait_until(lambda: len(relay.events()) > 60, "its events are shipped")
    relay.stop()
    spool = relay.data / "spool" / "worker-0"
    promises = [line for line in json_lines([tmp_path / "client.jsonl"]) if line["state"] == "queued"]
    subjects = [f"Subject: Scan {line['test_id']}".encode() for line in promises]
    flip(spool / "spool.db", subjects[25], 3)
    os.truncate(next((spool / "content").iterdir()), 100_000)  # torn
    octets = bytearray((spool / "spool.db").read_bytes())
    page = octets.find(subjects[3]) // 4096 * 4096
    octets[page : page + 4096] = bytes(4096)
    (spool / "spool.db").write_bytes(octets)
    relay.start()
    sink.start()
    wait_until(lambda: quarantined(relay), "it is set aside")
    relay.wait_drained()
    hit = {event["message"] for event in quarantined(relay)}
    assert 3 <= len(hit) <= 12
    assert finish(relay, sink, tmp_path, set_aside=len(hit))["duplicates"] == 0
    assert alarm(relay) >= len(hit)


def quarantined(relay: Relay) -> list[dict[str, str]]:
    return [event for event in relay.events() if event["kind"] == "quarantined"]


def alarm(relay: Relay) -> float:
    """Give the number in /metrics that an operator is woken by."""
    lines = [line for line in relay.metrics().splitlines() if "quarantined" in line and not line.startswith("#")]
    return max(float(line.rpartition(" ")[2]) for line in lines)
