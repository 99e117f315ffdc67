"""What disks do to a spool: flipped bits, zeroed pages, torn logs, files that cannot be read (rows 13, 14, 17)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import msgspec
import pytest

from postbud.model.event import Event, EventKind
from postbud.spool.sqlite import Spool
from postbud.spool.values import Damaged, Filter, SpoolUnusable, Unknown
from tests.system.spool_child import SMALL, append, delivered, is_whole
from tests.system.test_spool_kills import start

PAGE = 4096


async def filled(folder: Path, count: int = 60, size: int = 3000) -> list:
    spool = await Spool.open(folder, SMALL)
    sent = [await append(spool, f"message-{number}", size, 1 + number % 2) for number in range(count)]
    await spool.close()
    return sent


async def quarantined(spool: Spool) -> list[Event]:
    events = [msgspec.json.decode(data, type=Event) for _, data in await spool.events_after(0, 100_000)]
    return [event for event in events if event.kind is EventKind.QUARANTINED]


async def count_whole(spool: Spool, sent: list) -> int:
    """Read every content; each is whole, or quarantined, never wrong."""
    whole = 0
    for new in sent:
        try:
            assert is_whole((await spool.content(new.message.id)).content)
            whole += 1
        except (Damaged, Unknown):
            continue
    return whole


async def assert_told(spool: Spool, sent: list) -> None:
    """Every delivery waits, or an event says that it, or its message, is in quarantine."""
    waiting = {delivery.id for _, delivery in await spool.find(Filter(), 100_000)}
    events = await quarantined(spool)
    told = {event.delivery for event in events} | {event.message for event in events}
    for new in sent:
        for delivery in new.deliveries:
            assert delivery.id in waiting or delivery.id in told or new.message.id in told


def flip(path: Path, text: bytes, offset: int = 0) -> None:
    """Flip one bit of a text in a file."""
    octets = bytearray(path.read_bytes())
    at = octets.find(text)
    assert at >= 0
    octets[at + offset] ^= 4
    path.write_bytes(octets)


@pytest.mark.row("14")
async def test_a_flipped_bit_in_a_content_quarantines_that_message_and_serves_the_rest(tmp_path):
    sent = await filled(tmp_path)
    flip(tmp_path / "spool.db", b"Subject: message-10\r\n", 3)
    spool = await Spool.open(tmp_path, SMALL)
    with pytest.raises(Damaged):
        await spool.content(sent[10].message.id)
    with pytest.raises(Unknown):
        await spool.content(sent[10].message.id)
    assert await count_whole(spool, sent) == len(sent) - 1
    events = await quarantined(spool)
    assert {event.delivery for event in events} == {delivery.id for delivery in sent[10].deliveries}
    assert events[0].account == "acct_test"
    assert spool.counters.quarantined == len(sent[10].deliveries)
    assert (await spool.gauges()).quarantined == len(sent[10].deliveries) + 2
    await spool.close()


@pytest.mark.row("14")
async def test_a_flipped_bit_in_a_delivery_quarantines_that_delivery_alone(tmp_path):
    sent = await filled(tmp_path)
    victim = sent[11].deliveries[0]
    flip(tmp_path / "spool.db", victim.id.encode() + b"\xaa", 9)
    spool = await Spool.open(tmp_path, SMALL)
    due = (await spool.load_due(time.time() + 9, 1000, set())).deliveries
    assert {delivery.id for _, delivery in due} == {d.id for new in sent for d in new.deliveries} - {victim.id}
    assert len(await quarantined(spool)) == 1
    assert await count_whole(spool, sent) == len(sent)
    assert len(await spool.find(Filter(), 1000)) == len(due)
    await spool.close()


@pytest.mark.row("14")
async def test_a_flipped_bit_in_an_event_quarantines_that_event(tmp_path):
    sent = await filled(tmp_path)
    flip(tmp_path / "spool.db", b'"kind":"accepted"', 10)
    spool = await Spool.open(tmp_path, SMALL)
    assert len(await spool.events_after(0, 1000)) == len(sent) - 1
    assert len(await quarantined(spool)) == 1
    await spool.close()


@pytest.mark.row("14")
async def test_any_zeroed_page_costs_at_most_what_was_on_it(tmp_path):
    sent = await filled(tmp_path / "whole", 40)
    pages = (tmp_path / "whole" / "spool.db").stat().st_size // PAGE
    for number in range(pages):
        if number > 12 and number % 5:
            continue  # every page of the tables' roots, and a sample of the rest
        folder = tmp_path / f"page-{number}"
        shutil.copytree(tmp_path / "whole", folder)
        with (folder / "spool.db").open("r+b") as file:
            file.seek(number * PAGE)
            file.write(bytes(PAGE))
        spool = await Spool.open(folder, SMALL)
        whole = await count_whole(spool, sent)
        await assert_told(spool, sent)
        new = await append(spool, "later")
        assert is_whole((await spool.content(new.message.id)).content)
        await spool.commit(delivered(spool, *[delivery for _, delivery in await spool.find(Filter(), 10_000)]))
        assert await spool.find(Filter(), 10) == []
        await spool.close()
        print(f"page {number + 1}: {whole} of {len(sent)} whole, {spool.counters.quarantined} quarantined")
        assert whole >= len(sent) * 0.5, f"page {number + 1} cost {len(sent) - whole} messages"
        shutil.rmtree(folder)


@pytest.mark.row("14")
async def test_random_garbage_in_pages_never_gives_a_wrong_content(tmp_path):
    dice = random.Random(5)
    sent = await filled(tmp_path / "whole", 40)
    size = (tmp_path / "whole" / "spool.db").stat().st_size
    for case in range(12):
        folder = tmp_path / f"case-{case}"
        shutil.copytree(tmp_path / "whole", folder)
        with (folder / "spool.db").open("r+b") as file:
            for _ in range(3):
                file.seek(dice.randrange(PAGE, size))
                file.write(dice.randbytes(64))
        try:
            spool = await Spool.open(folder, SMALL)
        except SpoolUnusable:
            continue
        try:
            assert await count_whole(spool, sent) >= len(sent) - 20
            await assert_told(spool, sent)
        except Exception as error:  # damage that the quick check cannot see breaks the spool; the next open salvages
            assert spool.broken, repr(error)
            await spool.close()
            spool = await Spool.open(folder, SMALL)
            await count_whole(spool, sent)
            await assert_told(spool, sent)
        await spool.close()
        shutil.rmtree(folder)


@pytest.mark.row("13", "14")
async def test_a_log_cut_or_garbled_anywhere_gives_a_whole_beginning(tmp_path):
    dice = random.Random(7)
    child = start(tmp_path / "whole", tmp_path / "log", 1, 30)
    while not (tmp_path / "log").exists() or (tmp_path / "log").stat().st_size < 3000:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    wal = (tmp_path / "whole" / "spool.db-wal").stat().st_size
    assert wal > 0
    for case in range(12):
        folder = tmp_path / f"case-{case}"
        shutil.copytree(tmp_path / "whole", folder)
        with (folder / "spool.db-wal").open("r+b") as file:
            if case % 2:
                file.truncate(dice.randrange(wal))
            else:
                file.seek(dice.randrange(wal))
                file.write(dice.randbytes(600))
        spool = await Spool.open(folder, SMALL)
        for message_id in {message.id for message, _ in await spool.find(Filter(), 10_000)}:
            try:
                assert is_whole((await spool.content(message_id)).content)
            except Damaged:  # a cut goes back behind commits that were synced: a file deleted after one of them is missed
                assert case % 2 or spool.counters.quarantined
        await spool.close()
        shutil.rmtree(folder)


@pytest.mark.row("14", "17")
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
async def test_a_damaged_body_file_quarantines_its_message(tmp_path, harm):
    sent = await filled(tmp_path, 3, 200_000)
    spool = await Spool.open(tmp_path, SMALL)
    path = (await spool.content(sent[1].message.id)).content.body
    if harm == "flip":
        octets = bytearray(path.read_bytes())
        octets[100_000] ^= 1
        path.write_bytes(octets)
    elif harm == "cut":
        os.truncate(path, 100_000)
    else:
        path.unlink()
    with pytest.raises(Damaged):
        await spool.content(sent[1].message.id)
    assert await count_whole(spool, sent) == 2
    assert len(await quarantined(spool)) == 2
    await spool.close()


READER = """
import asyncio, sys
from pathlib import Path
from postbud.spool.sqlite import Spool
from postbud.spool.values import Damaged, Filter
from tests.system.spool_child import SMALL, is_whole
async def main():
    spool = await Spool.open(Path(sys.argv[1]), SMALL)
    damaged = whole = 0
    for message_id in {message.id for message, _ in await spool.find(Filter(), 100)}:
        try:
            whole += is_whole((await spool.content(message_id)).content)
        except Damaged as error:
            assert 'Errno 5' in str(error), error
            damaged += 1
    await spool.close()
    print(whole, damaged, spool.broken)
asyncio.run(main())
"""


def strace(*inject: str) -> list[str]:
    """Give the start of a command under strace, or skip where tracing is not permitted."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace is missing or ptrace is not permitted")
    return ["strace", "-f", "-o", "/dev/null", *inject]


@pytest.mark.row("17")
async def test_a_body_file_that_the_disk_will_not_read_quarantines_its_message_and_others_flow(tmp_path):
    await filled(tmp_path, 2, 200_000)
    victim = next((tmp_path / "content").iterdir())
    command = strace("-P", str(victim), "-e", "trace=read", "-e", "inject=read:error=EIO")
    command += [sys.executable, "-c", READER, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    whole, damaged, broken = done.stdout.split()
    assert int(whole) >= 1
    assert int(damaged) >= 1
    assert broken == "False"


@pytest.mark.row("9")
async def test_a_kill_while_salvaging_leaves_the_old_file_or_the_new(tmp_path):
    sent = await filled(tmp_path / "whole", 40)
    with (tmp_path / "whole" / "spool.db").open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(bytes(PAGE))
    for place in ("salvage_built", "salvage_switching"):
        folder = tmp_path / place
        shutil.copytree(tmp_path / "whole", folder)
        code = f"from postbud.spool import failpoint; failpoint.configure('{place}=kill'); import sys; {READER.strip()}"
        done = subprocess.run([sys.executable, "-c", code.replace("import sys; import", "import sys\nimport"), str(folder)],
                              cwd=Path(__file__).parents[2], check=False)  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        spool = await Spool.open(folder, SMALL)
        await count_whole(spool, sent)
        await assert_told(spool, sent)
        assert apsw.Connection(str(folder / "spool.db")).execute("PRAGMA quick_check").get == "ok"
        await spool.close()
