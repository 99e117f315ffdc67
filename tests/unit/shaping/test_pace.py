"""Pace: what a lane may do after what it heard, alone and against a provider that throttles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.shaping.provider import Provider, simulate

from postbud.shaping.pace import (
    CAPPED_SECONDS,
    DEFAULT_PACE,
    FORGET_SECONDS,
    RATE_MIN,
    SETTLE_SECONDS,
    Pace,
)

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["delivered", "connected", "slow", "refused", "failed", "started"]),
        st.floats(0, 400, allow_nan=False),
        st.integers(1, 50),
    ),
    max_size=60,
)


def move(pace: Pace, what: str, now: float, number: int) -> None:
    match what:
        case "delivered":
            pace.delivered(now, number)
        case "connected":
            pace.connected()
        case "slow":
            pace.slow_down(now, "421", 0.5)
        case "refused":
            pace.refused_connection(now, number, "421")
        case "failed":
            pace.failed(now, "timed out", 0.5)
        case _:
            pace.started(now)


@given(MOVES, st.integers(1, 100))
def test_whatever_happens_the_limits_hold_and_the_lane_comes_back(moves: list[tuple[str, float, int]], ceiling: int) -> None:
    now = 0.0
    pace = Pace(ceiling, now)
    for what, passed, number in moves:
        now += passed
        move(pace, what, now, number)
        assert 0 <= pace.connections(now) <= ceiling
        assert 0 <= pace.delay_seconds(now) <= DEFAULT_PACE.dead_max_seconds * 1.2 + 50 / RATE_MIN
        state = pace.state(now)
        assert state.messages_per_second is None or state.messages_per_second >= RATE_MIN
        assert pace.connections(now) > 0 or state.paused_until or state.dead_until
    now += max(FORGET_SECONDS, DEFAULT_PACE.dead_max_seconds * 3.2) + DEFAULT_PACE.pause_max_seconds * 1.2
    assert pace.connections(now) >= 1
    assert pace.delay_seconds(now) == 0
    assert pace.state(now).messages_per_second is None
    assert not pace.remembers(now)


def test_a_new_site_gets_one_connection_and_one_more_for_each_message_it_takes() -> None:
    pace = Pace(4, 0.0)
    seen = [pace.connections(0.0)]
    for _ in range(5):
        pace.delivered(1.0)
        seen.append(pace.connections(1.0))
    assert seen == [1, 2, 3, 4, 4, 4]


def test_slow_down_pauses_then_halves_the_window_and_goes_on_at_seventy_percent() -> None:
    pace = Pace(10, 0.0)
    now = 0.0
    while now < 60:
        now += 0.1
        pace.delivered(now)
    pace.slow_down(now, "421 4.7.0 slow down", 0.5)
    assert pace.connections(now) == 0
    assert pace.state(now).why == "421 4.7.0 slow down"
    wait = pace.delay_seconds(now)
    assert wait == pytest.approx(10)
    after = now + wait
    state = pace.state(after)
    assert state.messages_per_second == pytest.approx(7, rel=0.05)
    assert state.connections == 5
    pace.started(after)
    assert pace.delay_seconds(after) == pytest.approx(1 / 7, rel=0.05)
    assert pace.state(after + 300).messages_per_second == pytest.approx(10, rel=0.05)
    assert pace.state(after + FORGET_SECONDS).messages_per_second is None


def test_what_was_under_way_is_the_same_signal_and_a_second_one_pauses_twice_as_long() -> None:
    pace = Pace(10, 0.0)
    pace.slow_down(100.0, "first", 0.5)
    first = pace.delay_seconds(100.0)
    pace.slow_down(101.0, "second", 0.5)
    pace.delivered(101.0)
    assert pace.state(101.0).why == "first"
    again = 100.0 + first + SETTLE_SECONDS
    pace.slow_down(again, "third", 0.5)
    assert pace.delay_seconds(again) == pytest.approx(2 * first)


def test_a_refused_connection_caps_the_window_for_a_while() -> None:
    pace = Pace(10, 0.0)
    pace.delivered(1.0, 9)
    assert pace.connections(1.0) == 10
    pace.refused_connection(2.0, 3, "421 too many connections")
    assert pace.connections(2.0) == 3
    pace.delivered(3.0, 100)
    assert pace.connections(3.0) == 3
    assert pace.connections(3.0 + CAPPED_SECONDS) > 3


def test_a_dead_site_is_left_alone_twice_as_long_each_time_until_it_answers() -> None:
    pace = Pace(10, 0.0)
    pace.failed(0.0, "timed out", 0.5)
    assert pace.is_dead(DEFAULT_PACE.dead_seconds - 1)
    assert not pace.is_dead(DEFAULT_PACE.dead_seconds + 1)
    assert pace.connections(DEFAULT_PACE.dead_seconds + 1) == 1
    pace.failed(100.0, "timed out", 0.5)
    assert pace.is_dead(100.0 + 2 * DEFAULT_PACE.dead_seconds - 1)
    pace.connected()
    assert not pace.is_dead(101.0)
    pace.failed(200.0, "timed out", 0.5)
    assert not pace.is_dead(200.0 + DEFAULT_PACE.dead_seconds + 1)


@pytest.mark.parametrize("per_minute", [30, 120, 600, 3000])
@pytest.mark.parametrize("penalty_seconds", [0.0, 60.0])
def test_the_rate_that_a_provider_takes_is_found_and_kept(per_minute: int, penalty_seconds: float) -> None:
    run = simulate(Provider(per_minute=per_minute, penalty_seconds=penalty_seconds), 3600)
    taken, refused = run.taken_between(900, 3600), run.refused_between(900, 3600)
    assert taken >= (0.5 if penalty_seconds else 0.8) * per_minute * 45
    assert refused <= (0.1 if penalty_seconds else 0.02) * taken + 10


def test_the_number_of_connections_that_a_provider_takes_is_found() -> None:
    run = simulate(Provider(connections=3), 1800)
    free = simulate(Provider(), 1800, ceiling=3)
    assert run.taken_between(600, 1800) >= 0.4 * free.taken_between(600, 1800)
    assert run.refused_between(600, 1800) <= 0.05 * run.taken_between(600, 1800)


def test_without_a_limit_the_lane_uses_all_its_connections() -> None:
    run = simulate(Provider(), 60, ceiling=5)
    assert run.allowed[-1] == (pytest.approx(59, abs=1), None, 5)
    assert not run.refused


def test_connections_that_fail_together_are_one_failure() -> None:
    pace = Pace(20, 0.0)
    for _ in range(20):
        pace.failed(1.0, "timed out", 0.5)
    assert pace.state(1.0).dead_until == 1.0 + DEFAULT_PACE.dead_seconds
    pace.failed(100.0, "timed out", 0.5)
    assert pace.state(100.0).dead_until == 100.0 + 2 * DEFAULT_PACE.dead_seconds


def test_a_dead_site_is_remembered_until_the_next_try_has_had_its_chance() -> None:
    pace = Pace(10, 0.0)
    pace.failed(0.0, "timed out", 0.5)
    assert pace.remembers(2 * DEFAULT_PACE.dead_seconds)
    assert not pace.remembers(4 * DEFAULT_PACE.dead_seconds)
    pace.connected()
    assert not pace.remembers(DEFAULT_PACE.dead_seconds)
