"""`postbud queue` on a relay that runs and on one that does not."""

import json
from collections.abc import Callable

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Relay, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]
CONFIG = ("--config", "postbud.toml")


def send(relay: Relay, mailbox: str) -> str:
    return queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), [mailbox]))


def kinds(relay: Relay, message: str) -> list[str]:
    return [event["kind"] for event in relay.events_of(message)]


@pytest.fixture
def relay_with_a_dead_route(pair: Make) -> Relay:
    settings = Settings(workers=2, relay={"retry_first_seconds": 300, "retry_max_seconds": 300})
    settings.routes = {"dead.example": "127.0.0.1:1"}
    relay, _ = pair(settings)
    return relay


def test_operators_hold_release_and_cancel_with_an_event_each(relay_with_a_dead_route: Relay) -> None:
    relay = relay_with_a_dead_route
    messages = [send(relay, f"a{n}@dead.example") for n in range(6)]
    wait_until(lambda: all("deferred" in kinds(relay, message) for message in messages), "all are deferred once")
    assert {row["message"] for row in relay.queue()} == set(messages)
    shown = relay.command("queue", "show", *CONFIG, messages[0])
    assert messages[0] in shown
    assert "a0@dead.example" in shown
    relay.command("queue", "hold", *CONFIG, messages[0])
    wait_until(lambda: "held" in kinds(relay, messages[0]), "the hold is an event", 10)
    assert next(row for row in relay.queue() if row["message"] == messages[0])["held_by"] == ["operator"]
    relay.command("queue", "release", *CONFIG, messages[0])
    wait_until(lambda: "released" in kinds(relay, messages[0]), "the release is an event", 10)
    relay.command("queue", "cancel", *CONFIG, messages[1])
    wait_until(lambda: kinds(relay, messages[1])[-1] == "cancelled", "the end is an event", 10)
    before = kinds(relay, messages[2]).count("deferred")
    relay.command("queue", "retry", *CONFIG, messages[2])
    wait_until(lambda: kinds(relay, messages[2]).count("deferred") > before, "a retry is an attempt", 15)
    assert {row["message"] for row in relay.queue()} == set(messages) - {messages[1]}


def test_the_queue_can_be_listed_while_the_relay_is_down(relay_with_a_dead_route: Relay) -> None:
    relay = relay_with_a_dead_route
    messages = {send(relay, f"a{n}@dead.example") for n in range(3)}
    relay.stop()
    rows = [json.loads(line) for line in relay.command("queue", "list", "--json", *CONFIG).splitlines()]
    assert {row["message"] for row in rows} == messages


def test_explain_says_where_a_domain_goes_which_limits_hold_and_what_happens_now(relay_with_a_dead_route: Relay) -> None:
    relay = relay_with_a_dead_route
    message = send(relay, "a@dead.example")
    wait_until(lambda: "deferred" in kinds(relay, message), "it is deferred once")
    text = relay.command("queue", "explain", *CONFIG, "dead.example")
    assert "site      127.0.0.1:1  (static route dead.example)" in text
    assert "connections                 40      default" in text
    assert "left alone, no connection for" in text
    assert "refused" in text
    views = [json.loads(line) for line in relay.command("queue", "explain", "--json", *CONFIG, "dead.example").splitlines()]
    assert {view["worker"] for view in views} == {0, 1}
    assert sum(bool(view["lanes"]) for view in views) == 1
    assert relay.command("queue", "explain", *CONFIG, "no domain", check=False) == ""
