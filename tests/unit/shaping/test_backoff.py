"""When deferred deliveries are due, and how long they may be held."""

from hypothesis import given
from hypothesis import strategies as st

from postbud.model.delivery import Delivery, Hold
from postbud.model.ids import DeliveryId, MessageId
from postbud.shaping.backoff import RetrySchedule
from postbud.shaping.holding import MAX_SECONDS, held_too_long, hold, release

SCHEDULE = RetrySchedule()


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_grows_within_bounds(attempts: int, dice: float) -> None:
    delay = SCHEDULE.delay_seconds(attempts, dice)
    assert SCHEDULE.first_seconds * 0.8 <= delay <= SCHEDULE.max_seconds * 1.2


def test_the_first_retries_double() -> None:
    assert [SCHEDULE.delay_seconds(n, 0.5) for n in (1, 2, 3)] == [300.0, 600.0, 1200.0]


@given(st.integers(1, 50), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_the_next_attempt_is_never_after_the_expiry(attempts: int, now: float, expires_at: float, dice: float) -> None:
    due_at = SCHEDULE.next_attempt_at(attempts, now, expires_at, dice)
    if now >= expires_at:
        assert due_at is None
    else:
        assert due_at is not None
        assert now < due_at <= expires_at or due_at == expires_at


def delivery() -> Delivery:
    return Delivery(
        id=DeliveryId("dlv"),
        message_id=MessageId("msg"),
        mailbox="a@b.dk",
        domain="b.dk",
        due_at=10,
        expires_at=100,
        created_at=10,
    )


def test_the_expiry_clock_stops_while_somebody_holds() -> None:
    one = delivery()
    assert hold(one, Hold.BLOCK, 20)
    assert not hold(one, Hold.BLOCK, 21)
    assert hold(one, Hold.KEY, 25)
    assert release(one, Hold.BLOCK, 30)
    assert not release(one, Hold.BLOCK, 31)
    assert release(one, Hold.KEY, 50)
    assert (one.expires_at, one.due_at, one.held_since, one.held_by) == (130, 50, {}, frozenset())


def test_what_is_scheduled_for_later_stays_so_when_released() -> None:
    one = delivery()
    one.due_at = 90
    hold(one, Hold.OPERATOR, 20)
    release(one, Hold.OPERATOR, 30)
    assert one.due_at == 90


def test_a_delivery_held_since_nobody_knows_when_is_released_unchanged() -> None:
    one = delivery()
    one.held_by = frozenset({Hold.KEY})
    assert release(one, Hold.KEY, 50)
    assert one.expires_at == 100


def test_each_holder_has_its_maximum_of_its_own_and_a_block_has_none() -> None:
    one = delivery()
    assert not held_too_long(one, 1e12)
    hold(one, Hold.KEY, 0)
    limit = MAX_SECONDS[Hold.KEY]
    assert limit is not None
    assert not held_too_long(one, limit)
    assert held_too_long(one, limit + 1)
    hold(one, Hold.BLOCK, 1)
    assert not held_too_long(one, 1e12)
    one.held_since = {}
    release(one, Hold.BLOCK, 1)
    assert not held_too_long(one, 1e12)


def test_a_new_holder_does_not_inherit_the_time_of_an_old_one() -> None:
    one = delivery()
    hold(one, Hold.BLOCK, 0)
    hold(one, Hold.OPERATOR, 20 * 86400)
    release(one, Hold.BLOCK, 20 * 86400 + 1)
    assert not held_too_long(one, 20 * 86400 + 2)
