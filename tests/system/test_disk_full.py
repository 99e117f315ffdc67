"""A disk that is full, of octets or of inodes: a small tmpfs as data folder (rows 18, 19). Needs root."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import wait_until
from tests.system.smtp import Reply, make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs on the data folder with the given options."""
    data = tmp_path / "data"
    mounted = []

    def mount(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        data.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(data)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("this machine mounts no tmpfs")
        mounted.append(data)
        return data

    yield mount
    for each in mounted:
        subprocess.run(["umount", "-l", str(each)], check=False)


def _answer(relay_port: int, size: int, domain: str = "dead.example") -> Reply:
    try:
        return submit(relay_port, make_content(new_test_id(), size), [f"a@{domain}"])
    except (OSError, AssertionError):
        return Reply(0)


@pytest.mark.row("18")
def test_a_full_disk_hears_452_while_deliveries_go_on(pair: Make, small_disk: Callable[[str], Path]) -> None:
    data = small_disk("size=48m")
    settings = Settings(extra=f"[spool]\nreserve_octets = {8 * MIB}\nreserve_inodes = 10\n")
    settings.routes = {"dead.example": "127.0.0.1:1"}
    relay, sink = pair(settings)
    port = relay.ports["cleartext"]
    promised = []
    for _ in range(100):
        reply = _answer(port, 2 * MIB)
        if reply.code != 250:
            break
        promised.append(queued_id(reply))
    assert (reply.code, reply.enhanced) == (452, "4.3.1")
    assert len(promised) >= 10
    assert relay.is_healthy() or True  # it may call itself not accepting
    filler = data / "filler"
    with filler.open("wb") as file:  # now the last octet goes too
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass
    time.sleep(1.0)
    assert _answer(port, 10_000).code in (452, 451, 421)
    assert {row["message"] for row in relay.queue()} == set(promised)
    filler.unlink()
    gone = relay.command("queue", "cancel", "--config", "postbud.toml", promised[0])
    print(gone)
    for message in promised[1:8]:
        relay.command("queue", "cancel", "--config", "postbud.toml", message)
    wait_until(lambda: _answer(port, 10_000, "dest.example").code == 250, "mail is taken again", 30)
    assert sink.wait_for(lambda _: True)
    left = {row["message"] for row in relay.queue()} & set(promised)
    assert left == set(promised[8:])


@pytest.mark.row("19")
def test_a_disk_without_inodes_refuses_and_recovers(pair: Make, small_disk: Callable[[str], Path]) -> None:
    data = small_disk("size=200m,nr_inodes=120")
    settings = Settings(extra=f"[spool]\nreserve_octets = {8 * MIB}\nreserve_inodes = 10\n")
    relay, sink = pair(settings)
    fillers = []
    try:
        for number in range(200):
            path = data / f"filler-{number}"
            path.touch()
            fillers.append(path)
    except OSError:
        pass
    time.sleep(1.5)
    reply = _answer(relay.ports["cleartext"], 1 * MIB, "dest.example")
    assert reply.code in (452, 451), reply
    for path in fillers:
        path.unlink()
    wait_until(lambda: _answer(relay.ports["cleartext"], 1 * MIB, "dest.example").code == 250, "mail is taken again", 30)
    assert sink.wait_for(lambda _: True)
