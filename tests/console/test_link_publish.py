"""Publishing: what relays are told is committed with what it tells of, and numbered in the order of commits."""

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connections

from postbud.console.link import directory
from postbud.console.link.models import LinkRecord
from postbud.console.link.publish import OutsideTransactionError, begin_life, publish, publish_hash, withdraw
from postbud.console.transaction import write
from postbud.model.link import AccountRecord

pytestmark = pytest.mark.usefixtures("database")


def tell(*ids: str) -> None:
    with write():
        for one in ids:
            publish(AccountRecord(id=one, name=one))


def seqs() -> dict[str, int]:
    return dict(LinkRecord.objects.values_list("key", "seq"))


def test_numbers_rise_and_a_record_that_changes_gets_a_new_one() -> None:
    tell("a", "b")
    tell("a")
    assert seqs() == {"a": 3, "b": 2}
    assert [change.seq for change in directory.page(0).changes] == [2, 3]


def test_what_is_rolled_back_is_not_told() -> None:
    def fail() -> None:
        with write():
            publish(AccountRecord(id="a", name="a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seqs() == {}
    tell("b")
    assert seqs() == {"b": 1}


def test_a_nested_block_joins_and_numbers_are_given_once_at_the_end() -> None:
    with write():
        with write():
            publish(AccountRecord(id="a", name="old"))
        assert not LinkRecord.objects.exists()
        publish(AccountRecord(id="a", name="new"))
    assert b'"name":"new"' in bytes(LinkRecord.objects.get().body)


def test_nothing_is_published_outside_of_a_transaction() -> None:
    with pytest.raises(OutsideTransactionError):
        publish(AccountRecord(id="a", name="a"))
    with pytest.raises(OutsideTransactionError):
        withdraw("account", "a")
    with pytest.raises(OutsideTransactionError):
        publish_hash("platform", 1, present=True)


def test_what_was_withdrawn_is_told_as_gone_but_not_to_those_who_begin() -> None:
    tell("a", "b")
    with write():
        withdraw("account", "a")
    assert [bytes(change.record) for change in directory.page(2).changes] == [b'{"kind":"gone","what":"account","id":"a"}']
    assert [change.seq for change in directory.page(0).changes] == [2]
    tell("a")
    assert [change.seq for change in directory.page(3).changes] == [4]


def test_a_new_life_restarts_those_who_know_an_older_one_and_goes_on_for_the_rest() -> None:
    tell("a", "b")
    with write():
        publish_hash("platform", 5, present=True)
        begin_life()
    for known in (1, 2, 3, 4, 1_000_000):
        assert directory.page(known).restart
        assert directory.set_changes(known).restart
    page = directory.page(0)
    assert [change.seq for change in page.changes] == sorted(change.seq for change in page.changes)
    assert not directory.page(page.changes[0].seq).restart
    assert directory.page(page.seq).changes == ()
    tell("c")
    assert len(directory.page(page.seq).changes) == 1
    before = page.seq
    with write():
        begin_life()  # in the same second: still beyond everything before
    assert directory.page(before).restart


def test_a_number_beyond_our_own_restarts() -> None:
    tell("a")
    assert directory.page(2).restart
    assert not directory.page(1).restart


def test_pages_follow_each_other_and_skip_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PAGE_RECORDS", 10)
    tell(*(f"acct_{number}" for number in range(25)))
    since, seen = 0, 0
    for _ in range(3):
        page = directory.page(since)
        seen += len(page.changes)
        since = page.seq
    assert (seen, page.more) == (25, False)
    assert directory.page(since).changes == ()


def test_commit_order_is_the_order_of_numbers_under_parallel_writers() -> None:
    """A reader that follows the numbers while many write misses nothing: the invariant that the whole link stands on."""
    writers, each = 6, 25
    failed: list[BaseException] = []

    def writer(name: int) -> Callable[[], None]:
        def work() -> None:
            try:
                for number in range(each):
                    with write():
                        publish(AccountRecord(id=f"w{name}_{number}", name="x"))
                        time.sleep(0.001 * (name % 3))
            except BaseException as error:
                failed.append(error)
            finally:
                connections.close_all()

        return work

    threads = [threading.Thread(target=writer(name)) for name in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    since = 0
    while len(seen) < writers * each:
        alive = any(thread.is_alive() for thread in threads)
        page = directory.page(since) if since else directory.page(0)
        seen.extend(change.seq for change in page.changes)
        since = page.seq
        if not alive and not page.changes:
            break
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen == list(range(1, writers * each + 1))


def test_sets_are_told_by_name_page_and_change() -> None:
    low, middle, high = 3, 1 << 63, (1 << 64) - 1
    with write():
        for hashed in (high, low, middle):
            publish_hash("platform", hashed, present=True)
        publish_hash("acct_a", 9, present=True)
    names = directory.set_changes(0)
    assert (names.names, names.changes, names.seq) == (("acct_a", "platform"), (), 4)
    page = directory.set_page("platform", None)
    assert page.hashes == b"".join(hashed.to_bytes(8, "big") for hashed in (low, middle, high))
    assert directory.set_page("platform", middle).hashes == high.to_bytes(8, "big")
    assert directory.set_page("platform", high).hashes == b""
    with write():
        publish_hash("platform", low, present=False)
    assert [(change.hash, change.present) for change in directory.set_changes(4).changes] == [(low, False)]
    assert directory.set_page("platform", None).hashes == b"".join(hashed.to_bytes(8, "big") for hashed in (middle, high))


def test_a_large_set_is_given_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PAGE_HASHES", 4)
    with write():
        for hashed in range(10):
            publish_hash("platform", hashed * 7, present=True)
    got, after = b"", None
    while True:
        page = directory.set_page("platform", after)
        got += page.hashes
        after = page.next
        if after is None:
            break
    assert got == b"".join((hashed * 7).to_bytes(8, "big") for hashed in range(10))
