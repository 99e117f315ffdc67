"""A relay for all dialogues, with every kind of listener, routing everything to a sink; and one without bounce domain."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.directory import LISTENERS, Listener, Settings
from tests.system.harness import Recorder, Relay, running

SIZE_LIMIT_OCTETS = 1024 * 1024


@pytest.fixture(scope="session")
def dialogue_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Recorder]]:
    """A relay with a bounce domain: every reverse-path is replaced."""
    yield from _relay(tmp_path_factory.mktemp("dialogues"), "bounce.example")


@pytest.fixture(scope="session")
def relay_without_bounce_domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Recorder]]:
    """A relay without: a reverse-path is the account's own."""
    yield from _relay(tmp_path_factory.mktemp("dialogues"), None)


def _relay(folder: Path, bounce_domain: str | None) -> Iterator[tuple[Relay, Recorder]]:
    """Run it; when all is said, nothing smuggled may have come through, and nothing may have crashed."""
    settings = Settings(
        listeners=(*LISTENERS, Listener("proxy", more=('proxy_from = ["127.0.0.0/8"]', "auth_without_tls = true"))),
        bounce_domain=bounce_domain,
        relay={"size_limit_octets": SIZE_LIMIT_OCTETS},
    )
    with running(folder, settings) as (relay, sink):
        yield relay, sink
        time.sleep(1.0)
        assert relay.is_healthy(), relay.log_tail()
        smuggled = [m for record in sink.received() for m in record["recipients"] if "smuggled" in m]
        smuggled += [m for event in relay.events() for m in event.get("recipients", ()) if "smuggled" in m]
        assert not smuggled
        assert "Traceback" not in relay.log_path.read_text(errors="replace"), relay.log_tail(20000)
