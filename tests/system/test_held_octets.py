"""What one account has on hold is bounded: beyond it the account hears 452, and others go on (design, section 4)."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Relay, running, wait_until
from tests.system.smtp import Reply, Wire, make_content, new_test_id, queued_id, submit

LIMIT_OCTETS = 100_000


@pytest.fixture
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    settings = Settings(relay={"held_octets_per_account": LIMIT_OCTETS, "retry_first_seconds": 60, "retry_max_seconds": 60})
    with running(tmp_path_factory.mktemp("held"), settings) as pair:
        yield _with_sink_down(pair)


def _with_sink_down(pair: Pair) -> Relay:
    pair[1].close()
    return pair[0]


def hand_in(relay: Relay, octets: int) -> Reply:
    content = make_content(new_test_id(), size=octets)
    return submit(relay.ports["cleartext"], content, [f"{new_test_id()}@dest.example"])


def answer_to_mail(relay: Relay, username: str, sender: str) -> Reply:
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        wire.auth(username)
        return wire.say(f"MAIL FROM:<{sender}>")


def test_an_account_with_too_much_on_hold_hears_452_until_it_is_released(relay: Relay) -> None:
    messages = [queued_id(hand_in(relay, 60_000)) for _ in range(2)]
    for message in messages:
        relay.command("queue", "hold", "--config", "postbud.toml", message)

    def answer() -> Reply:
        return answer_to_mail(relay, "printer-1", "printer@acme.example")

    wait_until(lambda: answer().code == 452, "the account has too much on hold", 10)
    reply = answer()
    assert reply.enhanced == "4.3.1"
    assert "on hold" in reply.text
    assert answer_to_mail(relay, "beta-1", "x@beta.example").code == 250
    relay.command("queue", "release", "--config", "postbud.toml", messages[0])
    wait_until(lambda: answer().code == 250, "half of it was released", 10)
    relay.command("queue", "hold", "--config", "postbud.toml", messages[0])
    wait_until(lambda: answer().code == 452, "it is on hold again", 10)
    relay.command("queue", "cancel", "--config", "postbud.toml", messages[0])
    wait_until(lambda: answer().code == 250, "half of it was cancelled", 10)
