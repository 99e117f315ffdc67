"""The number of connections follows the loop: simulated with turns that take a part for each busy connection."""

from postbud.delivery.crowd import FEWEST, FIRST, LONG_TURN_SECONDS, Crowd


def test_a_loop_that_keeps_up_lets_the_number_grow_only_when_it_is_used() -> None:
    crowd = Crowd()
    for _ in range(10):
        crowd.turned(0.001)
    assert crowd.most == FIRST
    crowd.count = FIRST
    crowd.turned(0.001)
    assert (crowd.most, crowd.has_room, crowd.is_crowded) == (FIRST + FIRST // 10, True, False)


def test_a_loop_that_lags_closes_some_and_never_all() -> None:
    crowd = Crowd()
    crowd.count = 120
    crowd.turned(LONG_TURN_SECONDS)
    assert (crowd.most, crowd.has_room, crowd.is_crowded) == (96, False, True)
    for _ in range(50):
        crowd.turned(1.0)
    assert crowd.most == FEWEST


def test_with_endless_mail_turns_stay_about_as_long_as_they_should() -> None:
    crowd = Crowd()
    turns = []
    for _ in range(600):
        crowd.count = crowd.most
        turns.append(crowd.count * 0.00015)
        crowd.turned(turns[-1])
    assert max(turns[100:]) < 1.5 * LONG_TURN_SECONDS
    assert min(turns[100:]) > 0.5 * LONG_TURN_SECONDS
