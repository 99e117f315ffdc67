"""A clock that jumps carries nothing away (row 24)."""

import pytest

from postbud.app.clock import SteadyClock


class Hands:
    """Two clocks that tests move."""

    wall = 1_000_000.0
    monotonic = 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def steady() -> tuple[Hands, SteadyClock]:
    hands = Hands()
    return hands, SteadyClock(lambda: hands.wall, lambda: hands.monotonic)


def test_it_follows_a_wall_clock_that_is_corrected_a_little() -> None:
    hands, clock = steady()
    hands.pass_(10)
    hands.wall += 2
    assert clock() == hands.wall
    assert not clock.jumped


@pytest.mark.row("24")
@pytest.mark.parametrize("jump", [86400.0, -86400.0, 3600.0, -3600.0])
def test_it_does_not_follow_a_jump_but_approaches_it(jump: float) -> None:
    hands, clock = steady()
    before = clock()
    hands.wall += jump
    assert abs(clock() - before) < 1
    assert clock.jumped
    for _ in range(100):
        hands.pass_(10)
        clock()
    gone = clock() - before
    assert abs(gone - 1000) <= 101
    assert (gone > 1000) == (jump > 0)


@pytest.mark.row("24")
def test_it_arrives_at_a_clock_that_stays_wrong() -> None:
    hands, clock = steady()
    hands.wall += 3600
    for _ in range(40_000):
        hands.pass_(1)
        clock()
    assert clock() == hands.wall
