"""The spool's promises to its users, on real SQLite: batches, groups, looks through the queue, locks, suspects, versions."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import apsw
import msgspec
import pytest

from postbud.model.delivery import Hold
from postbud.model.event import Event, EventKind
from postbud.model.ids import IdSource
from postbud.model.refusal import Refusal, Why
from postbud.spool import failpoint
from postbud.spool.schema import check_sqlite
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Due, Filter, SpoolLocked, SpoolUnusable, Unknown
from tests.system.spool_child import SMALL, accepted, append, deferred, delivered, is_whole, octets_of, receive


@pytest.fixture
async def spool(tmp_path):
    opened = await Spool.open(tmp_path / "worker-0", SMALL)
    yield opened
    await opened.close()


async def events_of(spool: Spool) -> list[Event]:
    return [msgspec.json.decode(data, type=Event) for _, data in await spool.events_after(0, 10_000)]


async def test_a_message_goes_with_its_last_delivery(spool):
    new = await append(spool, "one", recipients=3)
    await spool.commit(delivered(spool, new.deliveries[0], new.deliveries[2]))
    assert is_whole((await spool.content(new.message.id)).content)
    await spool.commit(delivered(spool, new.deliveries[1]))
    with pytest.raises(Unknown):
        await spool.content(new.message.id)
    assert [event.kind for event in await events_of(spool)] == [EventKind.ACCEPTED] + [EventKind.DELIVERED] * 3


async def test_signatures_are_kept_until_they_are_replaced_or_the_message_goes(spool):
    new = await append(spool, "one")
    for signatures in (b"first", b"second"):
        await spool.commit(Batch(signatures=[(new.message.id, signatures)]))
        assert (await spool.content(new.message.id)).signatures == signatures
    await spool.commit(delivered(spool, *new.deliveries))
    counted = apsw.Connection(str(spool.folder / "spool.db")).execute("SELECT count(*) FROM signature").get
    assert counted == 0


async def test_an_update_of_a_delivery_that_is_gone_does_nothing(spool):
    new = await append(spool, "one")
    await spool.commit(delivered(spool, *new.deliveries))
    await spool.commit(deferred(spool, new.deliveries[0]))
    assert await spool.find(Filter(), 10) == []


async def test_what_waits_during_a_sync_shares_the_next_one(spool):
    before = spool.counters.commits
    failpoint.configure("before_commit=sleep:0.2@1")
    try:
        await asyncio.gather(*[append(spool, f"m{number}") for number in range(50)])
    finally:
        failpoint.configure("")
    assert spool.counters.commits - before <= 5
    assert spool.counters.batches == 50


@pytest.mark.row("48")
async def test_a_batch_that_fails_by_itself_does_not_fail_its_neighbours(spool):
    twice = accepted(spool, await receive(spool, "twice", 1000))
    await spool.commit(twice)
    failpoint.configure("before_commit=sleep:0.2@1")
    try:
        waiting = [append(spool, f"m{number}") for number in range(10)]
        waiting.insert(5, spool.commit(twice))
        results = await asyncio.gather(append(spool, "first"), *waiting, return_exceptions=True)
    finally:
        failpoint.configure("")
    refused = [result for result in results if isinstance(result, BaseException)]
    assert [refusal.why for refusal in refused] == [Why.TEMPORARY]
    assert len(await spool.find(Filter(), 100)) == 12
    assert spool.counters.failed == 1


async def test_due_deliveries_come_oldest_first_without_the_loaded_and_the_held(spool):
    now = time.time()
    sent = [await append(spool, f"m{number}") for number in range(6)]
    for number, new in enumerate(sent):
        new.deliveries[0].due_at = now - number
    sent[1].deliveries[0].held_by = frozenset({Hold.OPERATOR})
    sent[0].deliveries[0].due_at = now + 500
    await spool.commit(Batch(updates=[new.deliveries[0] for new in sent]))
    due = (await spool.load_due(now, 2, {sent[5].deliveries[0].id})).deliveries
    assert [delivery.id for _, delivery in due] == [sent[4].deliveries[0].id, sent[3].deliveries[0].id]
    assert due[0][0].id == sent[4].message.id
    account, domain = sent[4].message.account, sent[4].deliveries[0].domain
    assert await spool.load_due(now, 9, set(), skipped=[(account, domain)]) == Due([], now)
    assert await spool.load_due(now, 9, set(), skipped_accounts=[account]) == Due([], now)
    found = await spool.load_due(now, 9, set(), [(account, "other.example")], ["acct_other"])
    assert (len(found.deliveries), found.until) == (4, now)
    assert await spool.next_due_at() == now - 5
    assert await spool.next_due_at(now) == now + 500
    gauges = await spool.gauges()
    assert (gauges.queued, gauges.held, gauges.last_event, gauges.oldest_due_at) == (5, 1, 6, now - 5)


async def test_find_goes_through_the_queue_in_pages_and_by_every_filter(spool):
    sent = [await append(spool, f"m{number}", 500, 7, f"acct_{number % 2}") for number in range(10)]
    everything = [delivery.id for new in sent for delivery in new.deliveries]
    paged, after = [], None
    while page := await spool.find(Filter(), 9, after):
        after = page[-1][1].id
        paged += [delivery.id for _, delivery in page]
    assert paged == everything
    assert len(await spool.find(Filter(account="acct_0"), 100)) == 35
    assert len(await spool.find(Filter(domain="d3.example"), 100)) == 10
    assert len(await spool.find(Filter(server="srv_test", credential="crd_test"), 100)) == 70
    assert await spool.find(Filter(credential="crd_other"), 100) == []
    assert len(await spool.find(Filter(message=sent[4].message.id), 100)) == 7
    one = await spool.find(Filter(delivery=sent[4].deliveries[2].id), 100)
    assert [delivery.id for _, delivery in one] == [sent[4].deliveries[2].id]
    assert await spool.find(Filter(held=True), 100) == []
    assert await spool.find(Filter(message="msg_nonsense"), 100) == []


async def test_events_are_pruned_when_shipped_and_old_and_numbers_never_start_again(spool):
    for number in range(5):
        await append(spool, f"m{number}")
    assert await spool.prune_events(3, time.time() + 10) == 3
    assert await spool.prune_events(5, time.time() - 1000) == 0
    assert await spool.prune_events(5, time.time() + 10) == 1
    assert [seq for seq, _ in await spool.events_after(0, 10)] == [5]
    await append(spool, "next")
    assert [seq for seq, _ in await spool.events_after(0, 10)] == [5, 6]


async def test_a_large_body_is_a_file_at_a_lasting_path_until_the_message_goes(spool):
    content = await receive(spool, "large", 300_000)
    assert content.body.parent.name == "incoming"
    new = accepted(spool, content)
    await spool.commit(new)
    stored = (await spool.content(new.messages[0].message.id)).content
    assert stored.body.parent.name == "content"
    assert is_whole(stored)
    assert list((spool.folder / "incoming").iterdir()) == []
    await spool.commit(delivered(spool, *new.messages[0].deliveries))
    for _ in range(200):
        if not stored.body.exists():
            break
        await asyncio.sleep(0.01)
    assert not stored.body.exists()


async def test_a_stored_body_file_can_be_sent_again_in_another_message(spool):
    first = await append(spool, "large", 300_000)
    stored = (await spool.content(first.message.id)).content
    second = accepted(spool, stored)
    await spool.commit(second)
    await spool.commit(delivered(spool, *first.deliveries))
    assert is_whole((await spool.content(second.messages[0].message.id)).content)


@pytest.mark.row("1")
async def test_a_discarded_content_leaves_nothing_however_far_it_came(spool):
    for size in (100, 300_000):
        for drained in (False, True):
            writer = spool.open_content()
            octets = octets_of("x", size)
            for start in range(0, len(octets), 10_000):
                writer.write(octets[start : start + 10_000])
                if drained and writer.needs_drain:
                    await writer.drain()
            writer.discard()
            writer.discard()
    await asyncio.sleep(0.1)
    assert list((spool.folder / "incoming").iterdir()) == []


@pytest.mark.parametrize("chunk", [1000, 100_000])
async def test_a_header_section_that_never_ends_is_too_big(spool, chunk):
    writer = spool.open_content()
    for _ in range(600_000 // chunk):
        writer.write(b"X: " + b"y" * (chunk - 5) + b"\r\n")
    with pytest.raises(Refusal) as refused:
        await writer.finish()
    assert refused.value.why is Why.TOO_BIG
    writer.discard()


async def test_content_without_an_empty_line_or_line_end_is_bad(spool):
    writer = spool.open_content()
    writer.write(b"no header")
    with pytest.raises(Refusal) as refused:
        await writer.finish()
    assert refused.value.why is Why.BAD_CONTENT


async def test_contents_go_to_files_early_when_all_together_take_too_much_memory(tmp_path):
    spool = await Spool.open(tmp_path, msgspec.structs.replace(SMALL, contents_in_memory_octets=100_000))
    writers = [spool.open_content() for _ in range(20)]
    for writer in writers:
        writer.write(b"Subject: x\r\n\r\n" + b"y" * 19_998 + b"\r\n")
    contents = [await writer.finish() for writer in writers]
    assert [isinstance(content.body, Path) for content in contents].count(True) >= 10
    for writer in writers:
        writer.discard()
    await spool.close()


OWNER = """
import asyncio, sys, time
from pathlib import Path
from postbud.spool.sqlite import Spool
async def main():
    await Spool.open(Path(sys.argv[1]))
    print("open", flush=True)
    time.sleep(60)
asyncio.run(main())
"""


@pytest.mark.row("11")
async def test_a_second_opener_is_refused_and_a_killed_owner_lets_go(tmp_path):
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(SpoolLocked, match=f"in use by process {owner.pid}"):
            await Spool.open(tmp_path, SMALL)
        owner.kill()
    spool = await Spool.open(tmp_path, SMALL)
    with pytest.raises(SpoolLocked):
        await Spool.open(tmp_path, SMALL)
    await spool.close()


@pytest.mark.row("57")
async def test_a_newer_schema_is_refused(tmp_path):
    await (await Spool.open(tmp_path, SMALL)).close()
    connection = apsw.Connection(str(tmp_path / "spool.db"))
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    connection.close()
    with pytest.raises(SpoolUnusable, match="newer Postbud"):
        await Spool.open(tmp_path, SMALL)


def test_an_sqlite_with_the_wal_bug_is_refused():
    with pytest.raises(SpoolUnusable):
        check_sqlite("3.51.2")
    check_sqlite("3.51.3")
    check_sqlite("3.52.0")


async def test_a_spool_keeps_its_number_and_ids_rise_also_when_the_clock_steps_back(tmp_path, monkeypatch):
    spool = await Spool.open(tmp_path, SMALL)
    number = spool.spool_id
    new = await append(spool, "one")
    await spool.close()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 100_000)
    spool = await Spool.open(tmp_path, SMALL)
    assert spool.spool_id == number
    assert spool.ids.message() > new.message.id
    assert spool.ids.delivery() > new.deliveries[0].id
    await spool.close()


async def test_messages_with_ids_of_another_spool_are_kept_like_any_other(spool):
    foreign = IdSource(7, lambda: int(time.time() * 1000), lambda count: b"\1" * count)
    spool.ids, own = foreign, spool.ids
    new = await append(spool, "foreign", recipients=2)
    spool.ids = own
    assert is_whole((await spool.content(new.message.id)).content)
    await spool.commit(deferred(spool, new.deliveries[0]))
    found = await spool.find(Filter(message=new.message.id), 10)
    assert sorted(delivery.attempts for _, delivery in found) == [0, 1]
    await spool.commit(delivered(spool, *new.deliveries))
    assert await spool.find(Filter(), 10) == []
    assert apsw.Connection(str(spool.folder / "spool.db")).execute("SELECT count(*) FROM alien").get == 0
    await spool.commit(delivered(spool, *new.deliveries))  # gone already: nothing happens


@pytest.mark.row("56")
async def test_a_delivery_under_attempt_at_three_crashes_is_quarantined_and_the_innocent_are_not(tmp_path):
    spool = await Spool.open(tmp_path, SMALL)
    poison, innocent = [(await append(spool, name)).deliveries[0] for name in ("poison", "innocent")]
    for crash in range(3):
        spool.in_flight.enter(poison.id)
        if crash != 1:
            spool.in_flight.enter(innocent.id)
        else:
            await spool.commit(deferred(spool, innocent))
        await spool.close()  # what is in flight then stays in the file, as after a kill
        spool = await Spool.open(tmp_path, SMALL)
        assert (poison.id in spool.suspects) == (crash < 2)
    assert [delivery.id for _, delivery in await spool.find(Filter(), 10)] == [innocent.id]
    assert spool.suspects == {innocent.id}
    told = [event for event in await events_of(spool) if event.kind is EventKind.QUARANTINED]
    assert [(event.delivery, event.reason) for event in told] == [(poison.id, "was under attempt at 3 crashes")]
    assert spool.counters.quarantined == 1
    await spool.close()


async def test_in_flight_forgets_what_left(tmp_path):
    spool = await Spool.open(tmp_path, SMALL)
    delivery = (await append(spool, "one")).deliveries[0]
    spool.in_flight.enter(delivery.id)
    spool.in_flight.enter(delivery.id)
    spool.in_flight.leave(delivery.id)
    spool.in_flight.leave(delivery.id)
    await spool.close()
    spool = await Spool.open(tmp_path, SMALL)
    assert spool.suspects == frozenset()
    await spool.close()


def test_a_cancelled_commit_is_stored_or_not_and_nothing_hangs(tmp_path):
    async def main() -> int:
        spool = await Spool.open(tmp_path, SMALL)
        task = asyncio.ensure_future(spool.commit(accepted(spool, await receive(spool, "x", 1000))))
        await asyncio.sleep(0)
        task.cancel()
        await append(spool, "y")
        count = len(await spool.find(Filter(), 10))
        await spool.close()
        return count

    assert asyncio.run(main()) in {1, 2}


@pytest.mark.parametrize("text", ["x", "x=explode", "=kill", "x=raise:int", "x=sleep:long"])
def test_a_failpoint_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError):
        failpoint.configure(text)


def test_a_failpoint_acts_the_nth_time_and_for_its_detail_only():
    failpoint.configure("here=raise:KeyError@2, there/dlv_1=raise:OSError")
    try:
        failpoint.fp("here")
        with pytest.raises(KeyError):
            failpoint.fp("here")
        failpoint.fp("here")
        failpoint.fp("there", "dlv_2")
        with pytest.raises(OSError):
            failpoint.fp("there", "dlv_1")
    finally:
        failpoint.configure("")
