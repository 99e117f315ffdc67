"""One relay for all clients, routing everything to a recording sink."""

from collections.abc import Iterator

import pytest

from tests.system.harness import Recorder, Relay, running


@pytest.fixture(scope="session")
def relay_and_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Recorder]]:
    """The relay and where its mail arrives."""
    with running(tmp_path_factory.mktemp("clients")) as pair:
        yield pair
