"""One relay for all dialogues, with every kind of listener, routing everything to a recording sink."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.directory import LISTENERS, Listener, Settings
from tests.system.harness import Recorder, Relay, running

SIZE_LIMIT_OCTETS = 1024 * 1024


@pytest.fixture(scope="session")
def dialogue_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Recorder]]:
    """The relay; when all is said, nothing smuggled may have come through."""
    settings = Settings(
        listeners=(*LISTENERS, Listener("proxy", more=('proxy_from = ["127.0.0.0/8"]', "auth_without_tls = true"))),
        bounce_domain="bounce.example",
        relay={"size_limit_octets": SIZE_LIMIT_OCTETS},
    )
    folder: Path = tmp_path_factory.mktemp("dialogues")
    with running(folder, settings) as (relay, sink):
        yield relay, sink
        time.sleep(1.0)
        assert relay.is_healthy(), relay.log_tail()
        smuggled = [m for record in sink.received() for m in record["recipients"] if "smuggled" in m]
        smuggled += [m for event in relay.events() for m in event.get("recipients", ()) if "smuggled" in m]
        assert not smuggled
        assert "Traceback" not in relay.log_path.read_text(errors="replace"), relay.log_tail(20000)
