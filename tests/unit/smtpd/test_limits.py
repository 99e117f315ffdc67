"""Counting connections and failures of AUTH, with a clock that the test plays."""

import pytest

from postbud.smtpd.limits import AuthThrottle, ConnectionCount, address_key
from postbud.smtpd.settings import Limits

LIMITS = Limits(auth_failures_per_address=6, auth_failures_per_address_and_name=3, auth_window_seconds=100.0, auth_waiting=1)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_an_ipv6_client_is_its_64(address: str, key: str) -> None:
    assert address_key(address) == key


def test_connections_are_counted_and_forgotten() -> None:
    count = ConnectionCount(total=2, per_address=1)
    count.enter("a")
    assert (count.crowded("a"), count.crowded("b"), count.full) == (True, False, False)
    count.enter("b")
    assert count.full
    count.leave("a")
    assert (count.crowded("a"), count.full, count.open) == (False, False, 1)
    assert ConnectionCount(total=2, per_address=0).crowded("a")


@pytest.mark.row("F4")
def test_failures_count_for_the_pair_and_for_the_address_and_pass_with_time() -> None:
    throttle = AuthThrottle(LIMITS)
    for _ in range(3):
        assert not throttle.refuses("a", "u", 0.0)
        throttle.failed("a", "u", 0.0)
    assert throttle.refuses("a", "u", 1.0)
    assert not throttle.refuses("b", "u", 1.0)
    assert not throttle.refuses("a", "v", 1.0)
    assert not throttle.refuses("a", "u", 100.0)


@pytest.mark.row("F4")
def test_who_succeeded_before_is_judged_by_its_own_failures_only() -> None:
    throttle = AuthThrottle(LIMITS)
    throttle.succeeded("a", "good")
    for number in range(6):
        throttle.failed("a", f"guess{number}", 0.0)
    assert throttle.refuses("a", "new", 1.0)
    assert not throttle.refuses("a", "good", 1.0)


@pytest.mark.row("F4", "F6")
def test_the_delay_doubles_up_to_its_maximum_and_waiting_has_a_limit() -> None:
    throttle = AuthThrottle(LIMITS)
    assert [throttle.failed("a", str(n), 0.0) for n in range(6)] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    throttle.waiting = 1
    assert throttle.busy


def test_what_is_remembered_is_bounded() -> None:
    throttle = AuthThrottle(LIMITS)
    for number in range(21_000):
        throttle.failed(f"a{number}", "u", 0.0)
    for _ in range(3):
        throttle.failed("last", "u", 0.0)
    assert throttle.refuses("last", "u", 1.0)
