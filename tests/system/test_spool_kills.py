"""Kill -9 of a process that works on a spool: at random, and at every named place. Ends in the check of P1 and P3."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postbud.spool.adopt import adopt
from postbud.spool.sqlite import Spool
from tests.system.spool_child import SMALL, Log, append, check

CHILD = Path(__file__).with_name("spool_child.py")


def start(folder: Path, log: Path, seed: int, seconds: float, failpoints: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | {"POSTBUD_FAILPOINTS": failpoints, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, str(CHILD), str(folder), str(log), str(seed), str(seconds)], env=environment)


async def kill_at_random(folder: Path, log: Path, times: int, seed: int) -> Log:
    dice = random.Random(seed)
    for life in range(times):
        size = log.stat().st_size if log.exists() else 0
        child = start(folder, log, seed * 1000 + life, 30)
        while (log.stat().st_size if log.exists() else 0) <= size:
            assert child.poll() is None
            time.sleep(0.005)
        time.sleep(dice.random() * 0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if life % 5 == 4:
            await check(folder, Log.read(log))
    await check(folder, Log.read(log))
    return Log.read(log)


@pytest.mark.row("1", "2", "3", "4", "8", "9")
async def test_nothing_acknowledged_is_lost_or_half_after_kills_at_random_times(tmp_path):
    log = await kill_at_random(tmp_path / "worker-0", tmp_path / "log", 25, random.randrange(1 << 30))
    assert len(log.acknowledged) > 100


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.row("4")
async def test_nothing_acknowledged_is_lost_after_a_thousand_kills(tmp_path):
    for run in range(20):
        await kill_at_random(tmp_path / f"worker-{run}", tmp_path / f"log-{run}", 50, random.randrange(1 << 30))


@pytest.mark.row("2", "3", "8", "9", "15")
@pytest.mark.parametrize(
    "place",
    ["before_commit", "after_commit", "before_resolve", "before_checkpoint", "content_before_fsync", "content_after_rename"],
)
async def test_nothing_is_lost_or_half_after_a_kill_at_each_named_place(tmp_path, place):
    folder, log = tmp_path / "worker-0", tmp_path / "log"
    for nth in (1, 7):
        child = start(folder, log, nth, 20, f"{place}=kill@{nth}")
        assert child.wait() == -signal.SIGKILL
        await check(folder, Log.read(log))


ADOPTER = """
import asyncio, sys
from pathlib import Path
from postbud.spool import failpoint
from postbud.spool.adopt import adopt
from postbud.spool.sqlite import Spool
from tests.system.spool_child import SMALL, delivered
from postbud.spool.values import Filter
failpoint.configure(sys.argv[3])
async def main():
    spool = await Spool.open(Path(sys.argv[1]), SMALL)
    await adopt(Path(sys.argv[2]), spool)
asyncio.run(main())
"""


@pytest.mark.row("11", "9")
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_kill_while_adopting_loses_nothing_and_doubles_nothing(tmp_path, nth):
    from postbud.spool.values import Filter
    from tests.system import spool_child

    orphan = await Spool.open(tmp_path / "worker-1", SMALL)
    sent = [await append(orphan, f"m{number}", 90_000 if number % 100 == 0 else 800, 1 + number % 3) for number in range(450)]
    await orphan.close()
    arguments = [str(tmp_path / "worker-0"), str(tmp_path / "worker-1"), f"adopt_between=kill@{nth}"]
    child = subprocess.run([sys.executable, "-c", ADOPTER, *arguments], cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == -signal.SIGKILL
    spool = await Spool.open(tmp_path / "worker-0", SMALL)
    gone = (await spool.load_due(time.time() + 9, 100, set())).deliveries
    await spool.commit(spool_child.delivered(spool, *[delivery for _, delivery in gone]))  # and is not adopted again
    await adopt(tmp_path / "worker-1", spool)
    expected = {delivery.id for new in sent for delivery in new.deliveries} - {delivery.id for _, delivery in gone}
    found = await spool.find(Filter(), 10_000)
    assert sorted(delivery.id for _, delivery in found) == sorted(expected)
    assert not (tmp_path / "worker-1").exists()
    for message, _ in found:
        assert spool_child.is_whole((await spool.content(message.id)).content)
    events = await spool.events_after(0, 10_000)
    assert len(events) == len(sent) + len(gone)
    await spool.commit(spool_child.delivered(spool, *[delivery for _, delivery in found]))
    assert await spool.find(Filter(), 10) == []
    await spool.close()
    spool = await Spool.open(tmp_path / "worker-0", SMALL)
    assert await spool.find(Filter(), 10) == []
    assert list((tmp_path / "worker-0" / "content").iterdir()) == []
    await spool.close()
