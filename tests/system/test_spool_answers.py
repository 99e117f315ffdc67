"""What the spool keeps for the sending API: answers to requests with a key of their own, and the events of one message."""

import time

import apsw
import pytest

from postbud.model.event import EventKind
from postbud.model.ids import MessageId
from postbud.spool.adopt import adopt
from postbud.spool.schema import VERSION
from postbud.spool.sqlite import Spool
from postbud.spool.values import Answer, Batch
from tests.system.spool_child import SMALL, append, delivered


@pytest.fixture
async def spool(tmp_path):
    opened = await Spool.open(tmp_path / "worker-0", SMALL)
    yield opened
    await opened.close()


async def test_an_answer_is_found_until_it_is_too_old_and_a_later_one_takes_its_place(spool):
    now = time.time()
    await spool.commit(Batch(answers=[Answer(b"k" * 16, now, b"first")]))
    assert await spool.answer(b"k" * 16, now - 1) == b"first"
    assert await spool.answer(b"x" * 16, now - 1) is None
    assert await spool.answer(b"k" * 16, now) is None
    await spool.commit(Batch(answers=[Answer(b"k" * 16, now + 5, b"second")]))
    assert await spool.answer(b"k" * 16, now) == b"second"
    assert await spool.forget_answers(now + 5) == 0
    assert await spool.forget_answers(now + 6) == 1


async def test_an_answer_that_was_harmed_on_disk_counts_as_none(spool):
    await spool.commit(Batch(answers=[Answer(b"k" * 16, 5.0, b"first")]))
    await spool.run(lambda connection: connection.execute("UPDATE idempotency SET data = 'xxxxx'"))
    assert await spool.answer(b"k" * 16, 0.0) is None


async def test_the_events_of_one_message_are_found_among_others(spool):
    first = await append(spool, "one", recipients=2)
    second = await append(spool, "two")
    await spool.commit(delivered(spool, *first.deliveries))
    found = await spool.events_of(first.message.id)
    assert [event.kind for event in found] == [EventKind.ACCEPTED, EventKind.DELIVERED, EventKind.DELIVERED]
    assert [event.message for event in await spool.events_of(second.message.id)] == [second.message.id]
    assert await spool.events_of(MessageId("msg_nothing")) == []


async def test_a_spool_of_the_version_before_is_brought_forward_with_its_mail_and_events(tmp_path):
    spool = await Spool.open(tmp_path / "worker-0", SMALL)
    old = await append(spool, "old")
    await spool.close()
    connection = apsw.Connection(str(tmp_path / "worker-0" / "spool.db"))
    connection.execute("DROP INDEX event_message; ALTER TABLE event DROP COLUMN message; DROP TABLE idempotency")
    connection.execute("UPDATE meta SET value = 3 WHERE name = 'version'")
    connection.close()
    spool = await Spool.open(tmp_path / "worker-0", SMALL)
    try:
        assert await spool.run(lambda each: each.execute("SELECT value FROM meta WHERE name = 'version'").get) == VERSION
        assert await spool.events_of(old.message.id) == []  # from before the index
        assert (await spool.accepted_event(old.message.id)).message == old.message.id
        await spool.commit(delivered(spool, *old.deliveries))
        assert [event.kind for event in await spool.events_of(old.message.id)] == [EventKind.DELIVERED]
        await spool.commit(Batch(answers=[Answer(b"k", 5.0, b"a")]))
        assert await spool.answer(b"k", 0.0) == b"a"
    finally:
        await spool.close()


async def test_answers_and_events_move_to_the_worker_that_adopts(tmp_path, spool):
    orphan = await Spool.open(tmp_path / "worker-1", SMALL)
    gone = await append(orphan, "one")
    await orphan.commit(Batch(answers=[Answer(b"k", 5.0, b"a")]))
    await orphan.close()
    await adopt(tmp_path / "worker-1", spool)
    assert await spool.answer(b"k", 0.0) == b"a"
    assert [event.kind for event in await spool.events_of(gone.message.id)] == [EventKind.ACCEPTED]
