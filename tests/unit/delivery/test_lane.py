"""A lane's bookkeeping: what need not be tried is told from what may go on."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from postbud.delivery.lane import Active, Lane
from postbud.egress.routing import Hop, Routing
from postbud.egress.settings import TlsMode
from postbud.egress.source import Source
from postbud.model.delivery import Delivery, Message
from postbud.model.envelope import Notify
from postbud.model.outcome import Deferred, Scope
from postbud.shaping.limits import SiteLimits
from postbud.shaping.pace import Pace

AT = datetime(2026, 1, 1, tzinfo=UTC)
NOT_YOU = Deferred("this sender is deferred due to complaints", "4.7.1", Scope.SITE)
GONE = Deferred("connection refused", "4.4.1", Scope.SITE)


def active(number: int, account: str = "acct_a", **more: Any) -> Active:
    message = Message(
        id=f"msg_{number}", account=account, server="srv_a", credential="crd_a", reverse_path="a@acme.example",
        signing_domain=None, from_domain="acme.example", received_at=AT, size_octets=1000,
    )  # type: ignore[arg-type]  # fmt: skip  # ids are text
    delivery = Delivery(
        id=f"dlv_{number}", message_id=message.id, mailbox=f"b{number}@dest.example", domain="dest.example",
        due_at=0.0, expires_at=1e9, created_at=0.0, **more,
    )  # type: ignore[arg-type]  # fmt: skip
    return Active(message, delivery)


@pytest.fixture
def lane() -> Lane:
    routing = Routing("dest.example", (Hop("dest.example", 25),), Source("default", None, "relay"), TlsMode.NONE, SiteLimits())
    return Lane(("default", "dest.example"), routing, Pace(20, 0.0))


def test_an_account_that_a_site_does_not_want_holds_nobody_else_up(lane: Lane) -> None:
    lane.stop_account("acct_a", 100.0, NOT_YOU)
    lane.push(active(1, "acct_b"))
    assert not lane.has_refused(1.0)  # else the lane would settle nothing for ever instead of opening a connection
    assert lane.wants_connection(1.0)
    lane.push(active(2))
    assert lane.has_refused(1.0)
    taken, outcome = lane.take_refused(1.0)
    assert ([one.message.account for one in taken], outcome) == (["acct_a"], NOT_YOU)
    assert lane.take_refused(1.0) == ([], None)
    lane.push(active(3))
    assert not lane.has_refused(100.0)


def test_a_site_that_came_back_is_not_dead_and_still_does_not_want_the_account(lane: Lane) -> None:
    lane.pace.failed(0.0, "refused", 0.5)
    lane.dead = GONE
    lane.push(active(1))
    assert lane.has_refused(1.0)
    assert lane.take_refused(1.0)[1] is GONE
    lane.push(active(2))
    assert not lane.has_refused(1000.0)
    lane.stop_account("acct_a", 2000.0, NOT_YOU)
    assert lane.has_refused(1000.0)
    assert lane.take_refused(1000.0)[1] is NOT_YOU


def test_a_lane_whose_next_turn_is_far_away_opens_no_connection_till_then(lane: Lane) -> None:
    lane.push(active(1))
    lane.rests_until = 10.0
    assert [lane.wants_connection(now) for now in (9.0, 10.0)] == [False, True]


def test_what_is_put_back_is_first_of_its_account(lane: Lane) -> None:
    for number in (1, 2, 3):
        lane.push(active(number))
    first = lane.next_batch()
    lane.put_back(first)
    assert [lane.next_batch()[0].message.id for _ in range(3)] == ["msg_1", "msg_2", "msg_3"]


def test_a_transaction_has_so_many_recipients_and_the_rest_come_next(lane: Lane) -> None:
    lane.routing = replace(lane.routing, limits=SiteLimits(recipients_per_transaction=2))
    one = active(1)
    for number in range(5):
        lane.push(Active(one.message, active(number).delivery))
    lane.push(active(9))
    batches = [[each.delivery.id for each in lane.next_batch()] for _ in range(4)]
    assert batches == [["dlv_0", "dlv_1"], ["dlv_2", "dlv_3"], ["dlv_4"], ["dlv_9"]]


def test_what_waits_too_long_is_taken_once_and_the_rest_keeps_its_turn(lane: Lane) -> None:
    expired, waiting, late = active(1), active(2), active(3)
    expired.delivery.expires_at = 50.0
    late.delivery.notify = Notify.of("DELAY")
    for one in (expired, waiting, late):
        lane.push(one)
    assert lane.take_overdue(10.0, 100.0) == []
    assert lane.take_overdue(60.0, 100.0) == [expired]
    assert lane.take_overdue(100.0, 100.0) == [late]
    assert lane.take_overdue(100.0, 100.0) == []
    assert [one.leased for one in (expired, waiting, late)] == [True, False, True]
    assert lane.next_batch() == [waiting]
    assert lane.next_batch() == []
    assert not lane.waiting
