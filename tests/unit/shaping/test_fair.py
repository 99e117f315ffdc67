"""Fair order among accounts, and shares of a bounded set."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.shaping.fair import MAX_COST, QUANTUM, TURNS, FairQueue
from postbud.shaping.shares import FLOOR, Shares

ITEMS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 2 * MAX_COST)), max_size=200)


def drain(queue: FairQueue[int], costs: list[int]) -> list[int]:
    served = []
    while (item := queue.pop(lambda item: costs[item])) is not None:
        served.append(item)
    return served


@given(ITEMS)
def test_everything_is_served_once_and_each_account_in_its_own_order(items: list[tuple[str, bool, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (account, marketing, _) in enumerate(items):
        queue.push(account, number, marketing=marketing)
    assert sorted(queue) == list(range(len(items)))
    served = drain(queue, [cost for _, _, cost in items])
    assert sorted(served) == list(range(len(items)))
    for account in "abcd":
        for marketing in (True, False):
            own = [number for number in served if items[number][:2] == (account, marketing)]
            assert own == sorted(own)
    assert len(queue) == 0


def test_a_queue_knows_whose_items_wait() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push("a", 1)
    queue.push("b", 2, marketing=True)
    assert [queue.waits(account) for account in "abc"] == [True, True, False]
    queue.remove("b")
    assert [queue.waits(account) for account in "abc"] == [True, False, False]


@given(
    st.lists(st.integers(1, MAX_COST), min_size=30, max_size=30), st.lists(st.integers(1, MAX_COST), min_size=30, max_size=30)
)
def test_accounts_that_both_have_mail_waiting_are_never_far_apart(first: list[int], second: list[int]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(30):
        queue.push("a", ("a", number))
        queue.push("b", ("b", number))
    spent: Counter[str] = Counter()
    waiting = {"a": 30, "b": 30}
    while all(waiting.values()):
        served = queue.pop(lambda item: (first if item[0] == "a" else second)[item[1]])
        assert served is not None
        spent[served[0]] += (first if served[0] == "a" else second)[served[1]]
        waiting[served[0]] -= 1
        assert abs(spent["a"] - spent["b"]) <= 2 * (MAX_COST + QUANTUM)


def test_one_account_with_much_mail_does_not_keep_another_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100_000):
        queue.push("big", f"big {number}")
    queue.push("small", "small")
    place = next(place for place in range(100) if queue.pop(lambda _: 8192) == "small")
    assert place <= QUANTUM // 8192


def test_transactional_goes_first_and_marketing_has_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(80):
        queue.push("a", "marketing", marketing=True)
        queue.push("b", "transactional")
    first = Counter(queue.pop(lambda _: 1) for _ in range(80))
    assert first == {"transactional": 80 - 80 // TURNS, "marketing": 80 // TURNS}
    assert queue.pop(lambda _: 1) is not None


def test_what_comes_back_is_first_again_and_an_account_can_be_taken_away() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in (1, 2, 3):
        queue.push("a", number)
    queue.push("a", 4, marketing=True)
    queue.push("b", 5)
    assert queue.pop(lambda _: 1) == 1
    queue.push("a", 1, first=True)
    assert queue.pop(lambda _: 1) == 1
    assert queue.remove("a") == [2, 3, 4]
    assert queue.remove("a") == []
    assert len(queue) == 1
    assert queue.clear() == [5]
    assert len(queue) == 0
    assert queue.pop(lambda _: 1) is None


@given(st.integers(10, 2000), st.integers(1, 50))
def test_parties_that_want_everything_leave_room_for_the_next(limit: int, parties: int) -> None:
    shares: Shares[int] = Shares(limit)
    for _ in range(limit):
        for party in range(parties):
            if shares.has_room(party):
                shares.take(party)
    assert shares.total <= limit
    if limit >= FLOOR * (parties + 3):
        assert shares.has_room(-1)
        assert max(shares.held(party) for party in range(parties)) <= max(FLOOR, limit / 3 + 1)


def test_a_share_has_drained_when_half_of_it_is_free() -> None:
    shares: Shares[str] = Shares(30)
    while shares.has_room("a"):
        shares.take("a")
    assert shares.held("a") == 10
    assert not shares.has_drained("a")
    while not shares.has_drained("a"):
        shares.give_back("a")
    assert 4 <= shares.held("a") <= 7
    full: Shares[str] = Shares(1)
    full.take("a")
    assert not full.has_room("b")
    assert not full.has_drained("a")
    full.give_back("a")
    with pytest.raises(ValueError, match="holds nothing"):
        full.give_back("a")


def test_what_may_have_a_multiple_finds_room_beside_the_rest_of_its_party() -> None:
    shares: Shares[str] = Shares(90, alpha=1.0)
    while shares.has_room("a"):
        shares.take("a")
    assert shares.held("a") == 45
    while shares.has_room("a", 2.0):
        shares.take("a")
    assert shares.held("a") == 60
    assert shares.has_room("b")
