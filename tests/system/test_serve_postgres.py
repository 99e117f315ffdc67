"""`postbud serve` on PostgreSQL: the same product, the database away for a while, and the restore drill with `pg_dump`."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.postgres import Postgres
from tests.system.harness import Recorder, wait_until
from tests.system.load import Load
from tests.system.product import Product
from tests.system.test_serve import send

AWAY_SECONDS = 6.0


class Stoppable(Postgres):
    """A server that can be away for a while."""

    def away(self) -> None:
        """Stop it, whatever it does."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")

    def back(self) -> None:
        """Start it on the same data."""
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "start")


@pytest.fixture
def postgres() -> Iterator[Stoppable]:
    missing = Postgres.missing()
    if missing:
        pytest.skip(missing)
    server = Stoppable(())  # as installed: durable
    try:
        server.start()
        server.create("postbud")
        yield server
    finally:
        server.stop()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path)
    recorder.start("--no-content")
    yield recorder
    recorder.close()


@pytest.mark.row("47", "48")
@pytest.mark.timeout(300)
def test_a_database_that_goes_away_under_load_loses_no_mail_and_no_event(
    postgres: Stoppable, sink: Recorder, tmp_path: Path
) -> None:
    product = Product(tmp_path / "demo", next_hop=sink.next_hop, database=postgres.url("postbud"))
    client = tmp_path / "client.jsonl"
    try:
        product.start()
        server = product.server()
        load = Load(
            product.ports["cleartext"], client, sessions=4, pause_seconds=0.05,
            usernames=((server["username"], server["domain"]),),
        ).start()  # fmt: skip
        wait_until(lambda: load.counts["queued"] > 20, "mail is taken")
        postgres.away()
        before = load.counts["queued"]
        time.sleep(AWAY_SECONDS)
        meanwhile = load.counts["queued"] - before
        postgres.back()
        time.sleep(1.0)
        counts = load.stop()
        product.wait_whole()
        product.wait_drained()
        wait_until(product._has_shipped, "events are shipped", 60)
        report = product.check(sink, client)
        print(f"{meanwhile} messages were taken while the database was away; {counts}; {report.counts}")
        assert meanwhile > 20
        assert counts["refused"] == counts["unknown"] == counts["broken"] == 0
        assert not report.violations, report.as_json()
        assert product.health()["restarts"] == 0  # nothing fell over, nothing loops
    finally:
        product.close()


@pytest.mark.row("62")
@pytest.mark.timeout(300)
def test_the_restore_drill(postgres: Stoppable, sink: Recorder, tmp_path: Path) -> None:
    product = Product(tmp_path / "demo", next_hop=sink.next_hop, database=postgres.url("postbud"))
    backup = tmp_path / "backup.tar"
    try:
        product.start()
        before, _ = send(product, "before@dest.example")
        product.wait_state(before, "delivered")
        product.command("backup", str(backup), "--data", str(product.folder))
        after, _ = send(product, "after@dest.example")
        product.wait_state(after, "delivered")
        assert product.stop() == 0
        product.command("restore", str(backup), "--force", "--data", str(product.folder))
        assert not product.deliveries(after)
        assert product.deliveries(before)
        received = len(sink.received())
        product.start()
        product.wait_state(after, "delivered")
        assert len(sink.received()) == received
        message, _ = send(product, "then@dest.example")
        product.wait_state(message, "delivered")

        assert product.stop() == 0
        postgres.drop("postbud")  # now lose it whole
        postgres.create("postbud")
        for name in ("keys", "tls", "token.key", "postbud.toml", "demo.json", "DEMO"):
            (product.folder / name).rename(tmp_path / f"lost-{name}")
        product.command("restore", str(backup), "--data", str(product.folder))
        product.start()
        product.wait_state(message, "delivered")
        assert len(sink.received()) == received + 1
    finally:
        product.close()
