"""The checker itself: it must see every kind of breach, or its silence says nothing."""

from typing import Any

import pytest

from tests.system.invariants import check

CLIENT = {
    "test_id": "t1",
    "state": "queued",
    "message": "msg_1",
    "recipients": ["a@x.example", "b@x.example"],
    "sha256": "h",
    "account": "acct_acme",
}
ACCEPTED = {
    "id": "evt_1",
    "kind": "accepted",
    "message": "msg_1",
    "recipients": ["a@x.example", "b@x.example"],
    "deliveries": ["dlv_a", "dlv_b"],
    "account": "acct_acme",
    "credential": "crd_1",
}
DELIVERED_A = {"id": "evt_2", "kind": "delivered", "message": "msg_1", "delivery": "dlv_a"}
DELIVERED_B = {"id": "evt_3", "kind": "delivered", "message": "msg_1", "delivery": "dlv_b"}
RECEIPT = {"at": 100.0, "test_id": "t1", "recipients": ["a@x.example", "b@x.example"], "sha256": "h"}
EVENTS = [ACCEPTED, DELIVERED_A, DELIVERED_B]


def violations(**changed: Any) -> str:
    records: dict[str, Any] = {"client": [CLIENT], "sink": [RECEIPT], "events": EVENTS, "queue": []}
    return " | ".join(check(**(records | changed)).violations)


def test_a_clean_run_has_no_violation() -> None:
    assert violations() == ""


def test_what_is_still_queued_is_not_lost() -> None:
    queue = [{"message": "msg_1", "recipient": "b@x.example"}]
    assert violations(events=EVENTS[:2], queue=queue, sink=[RECEIPT | {"recipients": ["a@x.example"]}]) == ""


def test_what_was_harmed_on_the_disk_must_be_told_as_quarantined() -> None:
    aside = [*EVENTS[:2], {"id": "evt_9", "kind": "quarantined", "message": "msg_1", "delivery": "dlv_b"}]
    sink = [RECEIPT | {"recipients": ["a@x.example"]}]
    assert violations(events=aside, sink=sink, set_aside=1) == ""
    assert "P1: 1 promised recipients are in quarantine, 0 were harmed" in violations(events=aside, sink=sink)
    assert "P1" in violations(set_aside=1)


def test_the_same_event_shipped_twice_is_allowed() -> None:
    assert violations(events=[*EVENTS, DELIVERED_B]) == ""


@pytest.mark.parametrize(
    ("changed", "clause"),
    [
        ({"events": []}, "P1"),
        ({"events": EVENTS[:2]}, "P1: msg_1: b@x.example is neither"),
        ({"sink": []}, "P1: msg_1: a@x.example is recorded as delivered"),
        ({"sink": [RECEIPT | {"refused": "451"}]}, "P1"),
        ({"client": []}, "P1: 1 accepted without"),
        ({"client": [CLIENT | {"state": "refused"}]}, "P1"),
        ({"sink": [RECEIPT, RECEIPT | {"at": 105.0}]}, "P2"),
        ({"sink": [RECEIPT, RECEIPT | {"at": 105.0}], "kill_times": [99.0]}, "P2"),
        ({"events": [*EVENTS, DELIVERED_A | {"id": "evt_9"}]}, "P3"),
        ({"queue": [{"message": "msg_1", "recipient": "a@x.example"}]}, "P3"),
        ({"sink": [RECEIPT | {"sha256": "other"}]}, "P4"),
        ({"sink": [RECEIPT, RECEIPT | {"test_id": "t9"}]}, "P4"),
        ({"sink": [RECEIPT | {"recipients": ["a@x.example", "b@x.example", "c@x.example"]}]}, "P5"),
        ({"events": [ACCEPTED | {"account": "acct_beta"}, *EVENTS[1:]]}, "P5"),
        ({"events": [*EVENTS, DELIVERED_B | {"reply": "250 else"}]}, "events"),
        ({"events": [DELIVERED_A, ACCEPTED, DELIVERED_B]}, "events"),
        ({"events": [*EVENTS, {"id": "evt_8", "kind": "deferred", "message": "msg_1", "delivery": "dlv_a"}]}, "events"),
    ],
)
def test_every_breach_is_seen(changed: dict[str, Any], clause: str) -> None:
    assert clause in violations(**changed)


@pytest.mark.row("6")
def test_a_second_copy_is_allowed_when_a_kill_fell_between_dot_and_record() -> None:
    assert violations(sink=[RECEIPT, RECEIPT | {"at": 105.0}], kill_times=[101.0]) == ""


@pytest.mark.row("38")
def test_a_second_copy_is_allowed_after_an_answer_that_never_came() -> None:
    unknown = [
        {"id": f"evt_{d}u", "kind": "deferred", "message": "msg_1", "delivery": f"dlv_{d}", "possible_duplicate": True}
        for d in "ab"
    ]
    assert violations(sink=[RECEIPT, RECEIPT | {"at": 105.0}], events=[ACCEPTED, *unknown, DELIVERED_A, DELIVERED_B]) == ""
