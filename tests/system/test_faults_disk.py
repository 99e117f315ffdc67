"""Disks that are full, fail or forget, under a running relay; each ends in the invariant checker (rows 14, 17-19).

Mounting and tracing need root. What a full disk holds that the relay must still write: events, outcomes, and all that a
start makes anew.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, json_lines, wait_until
from tests.system.invariants import check_relay
from tests.system.load import Load
from tests.system.test_spool_damage import flip, strace

Make = Callable[..., Pair]
MIB = 1024 * 1024
RESERVES = f"[spool]\nreserve_octets = {8 * MIB}\nreserve_inodes = 10\n"


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


def restarts(relay: Relay) -> int:
    return relay.log_path.read_text().count("worker_died")


@pytest.mark.row("18", "19")
@pytest.mark.parametrize("end", ["killed on a full disk", "stopped before it filled"])
def test_a_relay_that_starts_on_a_full_disk_keeps_what_it_has_and_takes_mail_when_there_is_room(
    pair: Make, small_disk: Callable[[Path, str], Path], tmp_path: Path, end: str
) -> None:
    data = small_disk(tmp_path / "data", "size=24m")
    relay, sink = pair(Settings(extra=RESERVES))
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
