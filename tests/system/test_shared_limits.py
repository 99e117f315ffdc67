"""Limits of a site that hold exactly for all workers of a node, kill -9 included: "5 connections, 5 per second per site"."""

import random
from collections.abc import Iterator

import pytest

from tests.system.harness import wait_until
from tests.system.sites import Sites

CONNECTIONS, PER_SECOND = 5, 5
DOMAIN = "limited.example"
OWN_RULES = f"""
[[site]]
match = ["mx1.{DOMAIN}"]
connections = {CONNECTIONS}
messages_per_second = {PER_SECOND}
"""
SLACK_SECONDS = 0.5  # between a turn that was given and MAIL at the sink lies the opening of a connection


@pytest.fixture
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "own.toml").write_text(OWN_RULES)
    made = Sites(folder, {"retry_first_seconds": 1, "retry_max_seconds": 3, "shaping_file": "own.toml"})
    made.settings.workers = 4
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_four_workers_together_keep_to_a_sites_connections_and_rate_through_kills(sites: Sites) -> None:
    sites.site(DOMAIN, {"end": {"reply": "250 2.0.0 taken", "wait": 0.9}})  # so slow that five connections are needed
    sink = sites.sink_of(DOMAIN)
    letters = [sites.send(f"a{n}@{DOMAIN}") for n in range(100)]
    dice = random.Random(41)
    for taken in (10, 30, 50):
        wait_until(lambda taken=taken: len(sink.messages) >= taken, f"{taken} messages at the sink", 60)
        sites.relay.kill(dice.choice(sites.relay.workers()))
    assert f"{CONNECTIONS}" in next(line for line in sites.explain(DOMAIN).splitlines() if " connections " in line)
    sites.relay.wait_ready()
    sites.wait_final(*letters, seconds=120)
    worst = max(
        last - first + 1 - PER_SECOND * (sink.begun[last] - sink.begun[first])
        for first in range(len(sink.begun))
        for last in range(first, len(sink.begun))
    )
    seconds = sink.begun[-1] - sink.begun[0]
    print(
        f"4 workers, 3 kills: {len(sink.begun)} messages in {seconds:.1f} s, {sink.most_open} connections at most, "
        f"{worst:.2f} above the rate in the worst window"
    )
    assert 1 < sink.most_open <= CONNECTIONS
    assert worst <= 1 + PER_SECOND * SLACK_SECONDS
    counts = sites.check_all()
    assert counts["events_delivered"] == len(letters)
