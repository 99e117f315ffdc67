"""A disk that fails, is full, or is slow under the spool (rows 16, 18, 19, 21, 22)."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from postbud.model.refusal import Refusal, Why
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import Filter
from tests.system.spool_child import SMALL, append, deferred, delivered, is_whole
from tests.system.test_spool_damage import strace

ROOT = Path(__file__).parents[2]
KIB = 1024

FAILING = """
import asyncio, sys
from pathlib import Path
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import SpoolBroken
from tests.system.spool_child import SMALL, append
async def main():
    broken = []
    spool = await Spool.open(Path(sys.argv[1]), SMALL, on_broken=broken.append)
    async def client():
        for number in range(1000):
            try:
                new = await append(spool, f"m{number}", 1000)
            except SpoolBroken:
                return
            print("accepted", new.message.id, flush=True)
    await asyncio.wait_for(asyncio.gather(*[client() for _ in range(4)]), 60)
    try:
        spool.open_content()
    except SpoolBroken as error:
        print("refused", error.why.name, len(broken), spool.broken, flush=True)
    await spool.close()
asyncio.run(main())
"""


def run_child(code: str, folder: Path, *inject: str) -> list[str]:
    command = [*strace(*inject), sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.row("16")
@pytest.mark.parametrize("call", ["fsync,fdatasync", "pwrite64"])
async def test_a_disk_that_fails_stops_the_spool_and_what_was_acknowledged_is_there_after_a_restart(tmp_path, call):
    await (await Spool.open(tmp_path, SMALL)).close()
    lines = run_child(
        FAILING,
        tmp_path,
        "-P",
        str(tmp_path / "spool.db-wal"),
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error=EIO:when=40+",
    )
    assert lines[-1] == "refused TEMPORARY 1 True"
    told = {line.split()[1] for line in lines if line.startswith("accepted")}
    assert told
    spool = await Spool.open(tmp_path, SMALL)
    found = await spool.find(Filter(), 10_000)
    assert told <= {message.id for message, _ in found}
    for message, _ in found:
        assert is_whole((await spool.content(message.id)).content)
    await append(spool, "after")
    await spool.close()


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small tmpfs, or skip where that is not permitted."""
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def append_until_refused(spool: Spool, sent: list) -> None:
    while True:
        sent.append(await append(spool, "some", 6000))


def take_the_rest(path: Path) -> None:
    """Fill the disk as others would: all but the reserve."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


async def write_much(writer: ContentWriter) -> None:
    for _ in range(1000):
        writer.write(b"x" * 65534 + b"\r\n")
        await writer.drain()


def take_inodes(folder: Path) -> None:
    for number in range(100):
        (folder / f"file-{number}").touch()


@pytest.mark.row("18", "19")
async def test_a_full_disk_refuses_mail_and_still_records_results(tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        settings = msgspec.structs.replace(SMALL, settle_reserve_octets=512 * KIB)
        spool = await Spool.open(disk / "spool", settings)
        sent = []
        with pytest.raises(Refusal) as refused:
            await append_until_refused(spool, sent)
        assert refused.value.why is Why.NO_SPACE
        assert len(sent) > 50
        with pytest.raises(OSError):
            take_the_rest(disk / "ballast")
        for new in sent[:20]:
            await spool.commit(deferred(spool, new.deliveries[0]))
        for new in sent[20:40]:
            await spool.commit(delivered(spool, *new.deliveries))
        assert not spool.broken
        (disk / "ballast").unlink()
        for new in sent[40:]:
            await spool.commit(delivered(spool, *new.deliveries))
        await asyncio.sleep(1.5)
        await append(spool, "room again", 2000)
        await spool.close()
        spool = await Spool.open(disk / "spool", settings)
        assert len(await spool.find(Filter(), 10_000)) == 21
        await spool.close()


@pytest.mark.row("18")
async def test_a_full_disk_while_a_large_content_comes_in_is_refused_and_frees_what_it_took(tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        spool = await Spool.open(disk / "spool", SMALL)
        writer = spool.open_content()
        writer.write(b"Subject: large\r\n\r\n")
        with pytest.raises(Refusal) as refused:
            await write_much(writer)
        assert refused.value.why is Why.NO_SPACE
        with pytest.raises(Refusal):
            await writer.finish()
        writer.discard()
        await asyncio.sleep(0.1)
        assert list((disk / "spool" / "incoming").iterdir()) == []
        await append(spool, "small")
        assert not spool.broken
        await spool.close()


@pytest.mark.row("19")
async def test_a_disk_without_inodes_refuses_mail_and_still_records_results(tmp_path):
    with small_disk(tmp_path / "disk", "size=32m,nr_inodes=40") as disk:
        settings = msgspec.structs.replace(SMALL, reserve_inodes=5)
        spool = await Spool.open(disk / "spool", settings)
        new = await append(spool, "first")
        with pytest.raises(OSError):
            take_inodes(disk)
        with pytest.raises(Refusal) as refused:
            await append(spool, "large", 300_000)
        assert refused.value.why is Why.NO_SPACE
        await spool.commit(deferred(spool, new.deliveries[0]))
        await asyncio.sleep(1.2)
        assert not spool.has_space
        with pytest.raises(Refusal):
            spool.open_content()
        await spool.commit(delivered(spool, *new.deliveries))
        for path in disk.glob("file-*"):
            path.unlink()
        await asyncio.sleep(1.2)
        await append(spool, "large", 300_000)
        assert not spool.broken
        await spool.close()


@pytest.mark.row("18")
async def test_mail_is_refused_below_the_reserve_and_results_are_recorded(tmp_path):
    spool = await Spool.open(tmp_path, SMALL)
    new = await append(spool, "first")
    await spool.close()
    spool = await Spool.open(tmp_path, msgspec.structs.replace(SMALL, reserve_octets=1 << 60))
    with pytest.raises(Refusal) as refused:
        spool.open_content()
    assert refused.value.why is Why.NO_SPACE
    await spool.commit(delivered(spool, *new.deliveries))
    assert spool.counters.refused_no_space == 1
    await spool.close()


SLOW = """
import asyncio, sys, time
from pathlib import Path
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from tests.system.spool_child import SMALL, append
async def main():
    spool = await Spool.open(Path(sys.argv[1]), SMALL)
    await append(spool, "warm")
    lag = 0.0
    async def probe():
        nonlocal lag
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag = max(lag, time.monotonic() - before - 0.01)
    probing = asyncio.create_task(probe())
    commits, started = spool.counters.commits, time.monotonic()
    await asyncio.gather(*[append(spool, f"m{number}", 1000) for number in range(100)])
    print(spool.counters.commits - commits, time.monotonic() - started, lag)
    probing.cancel()
    await spool.close()
asyncio.run(main())
"""


@pytest.mark.row("21")
async def test_a_slow_disk_makes_groups_and_does_not_stall_the_event_loop(tmp_path):
    call = "fsync,fdatasync"
    await (await Spool.open(tmp_path, SMALL)).close()
    inject = f"inject={call}:delay_enter=400000"
    lines = run_child(SLOW, tmp_path, "-P", str(tmp_path / "spool.db-wal"), "-e", f"trace={call}", "-e", inject)
    commits, seconds, lag = map(float, lines[-1].split())
    assert commits <= 20, "a hundred messages share few syncs"
    assert seconds < 20
    assert lag < 0.4


# VmHWM and not ru_maxrss, which a child has from the process that started it
LARGE = """
import asyncio, sys, time
from pathlib import Path
from postbud.spool.content import ContentWriter
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, SpoolSettings
from tests.system.spool_child import accepted, append
SIZE, CHUNK = 40 << 20, (b"y" * 76 + b"\\r\\n") * 840
async def main():
    spool = await Spool.open(Path(sys.argv[1]), SpoolSettings(reserve_octets=0, reserve_inodes=0))
    waits = []
    async def large(number):
        writer = spool.open_content()
        writer.write(b"Subject: large\\r\\n\\r\\n")
        for _ in range(SIZE // len(CHUNK)):
            writer.write(CHUNK)
            if writer.needs_drain:
                await writer.drain()
            else:
                await asyncio.sleep(0)
        await spool.commit(accepted(spool, await writer.finish()))
    async def small(done):
        while not done.is_set():
            started = time.monotonic()
            await append(spool, "small", 4000)
            waits.append(time.monotonic() - started)
            await asyncio.sleep(0.02)
    done = asyncio.Event()
    probe = asyncio.create_task(small(done))
    await asyncio.gather(*[large(number) for number in range(int(sys.argv[2]))])
    done.set()
    await probe
    await spool.close()
    waits.sort()
    [most] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(most.split()[1]) // 1024, waits[len(waits) // 2], waits[-1], len(waits))
asyncio.run(main())
"""


@pytest.mark.row("22")
async def test_fifty_messages_of_40_mib_at_once_stay_under_400_mib_and_do_not_stall_small_ones(tmp_path):
    if shutil.disk_usage(tmp_path).free < 6 << 30:
        pytest.skip("needs 6 GiB of disk")
    started = time.monotonic()
    command = [sys.executable, "-c", LARGE, str(tmp_path), "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(tmp_path / "content", ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rss, median, worst, count = map(float, done.stdout.split())
    print(
        f"{rss} MiB, {count} small ones: median {median:.3f} s, worst {worst:.3f} s; {time.monotonic() - started:.0f} s in all"
    )
    assert rss < 400
    assert median < 2.0
    assert worst < 20.0
