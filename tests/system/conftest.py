"""What the whole-relay tests share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, running

Pair = tuple[Relay, Recorder]


@pytest.fixture(scope="session")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One relay and sink for tests that harm nobody."""
    with running(tmp_path_factory.mktemp("shared"), Settings(bounce_domain="bounce.example")) as pair:
        yield pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Make a relay and a sink of a test's own; `start=False` leaves the relay unstarted."""
    with ExitStack() as stack:

        def make(settings: Settings | None = None, *, start: bool = True) -> Pair:
            sink = Recorder(tmp_path)
            sink.start()
            stack.callback(sink.close)
            settings = settings or Settings()
            settings.next_hop = settings.next_hop or sink.next_hop
            relay = Relay(tmp_path, settings)
            stack.callback(relay.close)
            if start:
                relay.start()
            return relay, sink

        yield make
