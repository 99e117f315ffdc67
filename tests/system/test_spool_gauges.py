"""The gauges tell what the rows say, after everything that changes rows and after everything that keeps them from changing."""

import asyncio
import time
from pathlib import Path

import apsw
import pytest

from postbud.model.delivery import Hold
from postbud.model.refusal import Refusal
from postbud.spool import failpoint, read
from postbud.spool.adopt import adopt
from postbud.spool.read import Damage
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Due, Gauges
from tests.system.spool_child import SMALL, append, deferred, delivered


@pytest.fixture
async def spool(tmp_path):
    opened = await Spool.open(tmp_path / "worker-0", SMALL)
    yield opened
    await opened.close()


def counted(folder: Path) -> Gauges:
    connection = apsw.Connection(str(folder / "spool.db"), flags=apsw.SQLITE_OPEN_READONLY)
    ask = connection.execute
    files = [folder / "spool.db", folder / "spool.db-wal", *(folder / "content").iterdir()]
    gauges = Gauges(
        queued=ask("SELECT count(*) FROM delivery WHERE held = 0").get,
        held=ask("SELECT count(*) FROM delivery WHERE held = 1").get,
        octets=sum(file.stat().st_size for file in files if file.exists()),
        last_event=ask("SELECT coalesce(max(seq), 0) FROM event").get,
        quarantined=ask("SELECT count(*) FROM quarantine").get,
        oldest_due_at=ask("SELECT min(due_at) FROM delivery WHERE held = 0").get,
    )
    connection.close()
    return gauges


async def agreed(spool: Spool) -> tuple[int, int, int]:
    """Compare with the rows and files; give queued, held, quarantined."""
    gauges = await spool.gauges()
    for _ in range(100):  # files are deleted, and the log is copied, behind the commit
        if gauges == counted(spool.folder):
            break
        await asyncio.sleep(0.01)
        gauges = await spool.gauges()
    assert gauges == counted(spool.folder)
    return gauges.queued, gauges.held, gauges.quarantined


async def put_aside(spool: Spool, message: str) -> None:
    key = await spool._read(spool._reader.message_key, message)
    await spool._put_aside([Damage("message", key, None, "for a test")])


async def test_an_empty_spool_tells_nothing(spool):
    assert await agreed(spool) == (0, 0, 0)


async def test_what_is_accepted_and_settled_is_told(spool):
    sent = [await append(spool, f"m{number}", size, 3) for number, size in enumerate((500, 500, 200_000))]
    assert await agreed(spool) == (9, 0, 0)
    await spool.commit(deferred(spool, sent[0].deliveries[0]))
    assert await agreed(spool) == (9, 0, 0)
    await spool.commit(delivered(spool, *sent[0].deliveries, *sent[2].deliveries))
    assert await agreed(spool) == (3, 0, 0)
    await spool.commit(delivered(spool, *sent[0].deliveries))  # gone already
    await spool.commit(deferred(spool, sent[0].deliveries[0]))
    assert await agreed(spool) == (3, 0, 0)


async def test_what_is_held_is_told_until_it_is_released_or_goes(spool):
    first, second = [(await append(spool, name, 500, 2)).deliveries for name in ("first", "second")]
    for delivery in (*first, second[0]):
        delivery.held_by = frozenset({Hold.OPERATOR})
    await spool.commit(Batch(updates=[*first, second[0]]))
    assert await agreed(spool) == (1, 3, 0)
    first[0].held_by = frozenset({Hold.OPERATOR, Hold.KEY})
    await spool.commit(Batch(updates=[first[0]]))
    assert await agreed(spool) == (1, 3, 0)
    first[0].held_by = frozenset()
    await spool.commit(Batch(updates=[first[0]]))
    assert await agreed(spool) == (2, 2, 0)
    await spool.commit(delivered(spool, first[1]))
    assert await agreed(spool) == (2, 1, 0)


async def test_what_goes_to_quarantine_is_told_there(spool):
    new = await append(spool, "bad", 200_000, 3)
    await append(spool, "good")
    await put_aside(spool, new.message.id)
    assert await agreed(spool) == (1, 0, 5)  # three deliveries, the message's own part and its content


async def test_what_is_adopted_is_told_by_the_spool_that_adopts(tmp_path, spool):
    orphan = await Spool.open(tmp_path / "worker-1", SMALL)
    held = (await append(orphan, "held", 200_000, 2)).deliveries[0]
    held.held_by = frozenset({Hold.OPERATOR})
    await orphan.commit(Batch(updates=[held]))
    await put_aside(orphan, (await append(orphan, "bad", 200_000)).message.id)
    await orphan.close()
    await append(spool, "own")
    await adopt(tmp_path / "worker-1", spool)
    assert await agreed(spool) == (2, 1, 3)


@pytest.mark.parametrize("place", ["before_commit", "content_before_fsync"])
async def test_a_commit_that_fails_changes_nothing(spool, place):
    new = await append(spool, "one", 200_000, 2)
    failpoint.configure(f"{place}=raise:ValueError@1")
    try:
        with pytest.raises((Refusal, ValueError)):
            await append(spool, "two", 200_000)
    finally:
        failpoint.configure("")
    assert await agreed(spool) == (2, 0, 0)
    failpoint.configure("before_commit=raise:ValueError@1")
    try:
        with pytest.raises(Refusal):
            await spool.commit(delivered(spool, *new.deliveries))
    finally:
        failpoint.configure("")
    assert await agreed(spool) == (2, 0, 0)


async def test_a_spool_that_is_opened_again_tells_the_same(tmp_path):
    spool = await Spool.open(tmp_path, SMALL)
    await append(spool, "one", 200_000, 4)
    await spool.close()
    spool = await Spool.open(tmp_path, SMALL)
    assert await agreed(spool) == (4, 0, 0)
    await spool.close()


@pytest.mark.parametrize("damage", ["UPDATE tally SET queued = 77, held = -1", "DELETE FROM tally"])
async def test_a_tally_that_is_wrong_is_put_right_when_the_spool_is_opened(tmp_path, damage):
    spool = await Spool.open(tmp_path, SMALL)
    await append(spool, "one", recipients=4)
    await spool.close()
    with apsw.Connection(str(tmp_path / "spool.db")) as connection:
        connection.execute(damage)
    connection.close()
    spool = await Spool.open(tmp_path, SMALL)
    assert await agreed(spool) == (4, 0, 0)
    await spool.close()


async def test_a_spool_of_the_version_before_is_counted_once_and_then_told(tmp_path):
    spool = await Spool.open(tmp_path, SMALL)
    await append(spool, "one", recipients=3)
    await spool.close()
    connection = apsw.Connection(str(tmp_path / "spool.db"))
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DROP TABLE tally; DROP TABLE idempotency")
    connection.execute("DROP INDEX event_message; ALTER TABLE event DROP COLUMN message")
    connection.execute("UPDATE meta SET value = 2 WHERE name = 'version'")
    connection.close()
    spool = await Spool.open(tmp_path, SMALL)
    assert await agreed(spool) == (3, 0, 0)
    await append(spool, "two")
    assert await agreed(spool) == (4, 0, 0)
    await spool.close()


async def test_the_gauges_wait_for_no_look_through_the_queue(spool):
    await append(spool, "one")
    look = spool._read(time.sleep, 1.0)
    looking = asyncio.ensure_future(look)
    await asyncio.sleep(0.05)
    started = time.monotonic()
    assert (await spool.gauges()).queued == 1
    assert time.monotonic() - started < 0.5
    await looking


async def test_a_look_for_due_mail_ends_after_some_rows_and_goes_on_from_there(spool, monkeypatch):
    monkeypatch.setattr(read, "_PASSED_AT_ONCE", 4)
    now = time.time()
    sent = [await append(spool, f"m{number}", 500, 1, "acct_dead" if number < 10 else "acct_good") for number in range(12)]
    for number, new in enumerate(sent):
        new.deliveries[0].due_at = now - 100 + number // 6  # six are due at one instant, more than one look passes over
    await spool.commit(Batch(updates=[new.deliveries[0] for new in sent]))
    found, since, looks = [], 0.0, 0
    while since < now:
        due: Due = await spool.load_due(now, 9, {found_[1].id for found_ in found}, (), ["acct_dead"], since)
        assert due.until > since
        found += due.deliveries
        since = due.until
        looks += 1
    assert [delivery.id for _, delivery in found] == [new.deliveries[0].id for new in sent[10:]]
    assert looks > 2
