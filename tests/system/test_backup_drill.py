"""The drill: back up, lose the database, bring it back; the relay sends again what was lost, nothing is delivered twice."""

import time
from pathlib import Path

import pytest

from tests.system.harness import Recorder, wait_until
from tests.system.product import Product
from tests.system.test_serve import run, send


@pytest.mark.row("62")
@pytest.mark.timeout(300)
def test_a_console_that_was_restored_is_complete_again_and_nothing_is_delivered_twice(tmp_path: Path) -> None:
    sink = Recorder(tmp_path)
    sink.start("--no-content")
    product = Product(tmp_path / "demo", next_hop=sink.next_hop)
    backup = tmp_path / "backup.tar"
    try:
        product.start()
        before = [send(product, f"before-{number}@dest.example")[0] for number in range(5)]
        for message in before:
            product.wait_state(message, "delivered")
        product.command("backup", str(backup), "--data", str(product.folder))  # while all runs
        after = [send(product, f"after-{number}@dest.example")[0] for number in range(5)]
        for message in after:
            product.wait_state(message, "delivered")
        assert product.stop() == 0
        for name in ("console.db", "console.db-wal", "console.db-shm"):
            (product.folder / name).unlink(missing_ok=True)

        refused = run(["restore", str(backup), "--data", str(product.folder)], product)
        assert refused.returncode == 2
        assert "--force" in refused.stderr
        product.command("restore", str(backup), "--force", "--data", str(product.folder))
        assert not [row for row in product.rows("SELECT message FROM mail_delivery") if row["message"] in after]
        received = len(sink.received())

        began = time.monotonic()
        product.start()
        for message in after:
            product.wait_state(message, "delivered")
        print(f"complete again {time.monotonic() - began:.1f} s after the start")
        for message in before:
            (delivery,) = product.deliveries(message)
            assert delivery["state"] == "delivered"
        assert len(sink.received()) == received  # nothing was delivered again
        message, _ = send(product, "then@dest.example")
        product.wait_state(message, "delivered")
        counted = product.rows("SELECT sum(delivered) AS delivered FROM mail_rollup WHERE account != '' AND dimension = ''")[0][
            "delivered"
        ]
        assert counted == len(before) + len(after) + 1  # no event was counted twice either
    finally:
        product.close()
        sink.close()


@pytest.mark.row("62")
@pytest.mark.timeout(240)
def test_a_backup_is_taken_to_another_folder(tmp_path: Path) -> None:
    product = Product(tmp_path / "demo")
    other = tmp_path / "other"
    try:
        product.start()
        message, _ = send(product, "here@example.net")
        product.wait_state(message, "delivered")
        product.command("backup", str(tmp_path / "b.tar"), "--data", str(product.folder))
        assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
        assert product.stop() == 0
        product.command("restore", str(tmp_path / "b.tar"), "--data", str(other))
        moved = Product(other)
        moved.ports, moved.telemetry_port, moved.environment = product.ports, product.telemetry_port, product.environment
        try:
            moved.start()
            assert moved.noted["servers"] == product.noted["servers"]
            (delivery,) = moved.deliveries(message)
            assert delivery["state"] == "delivered"
            message, _ = send(moved, "there@example.net")
            moved.wait_state(message, "delivered")
        finally:
            moved.close()
    finally:
        product.close()


@pytest.mark.row("61")
@pytest.mark.timeout(240)
def test_without_its_installation_key_nothing_starts_and_with_it_all_goes_on(tmp_path: Path) -> None:
    product = Product(tmp_path / "demo")
    key = product.folder / "keys" / "installation.key"
    try:
        product.start()
        assert product.stop() == 0
        kept = key.read_bytes()
        key.unlink()
        refused = run(product.words, product)
        assert refused.returncode == 2
        assert "installation.key is missing: bring it back" in refused.stderr
        assert not key.exists()  # no new one was made over old data
        key.write_bytes(bytes(32))
        product.start(wait=False)
        assert product.process is not None
        assert product.process.wait(60) == 2
        assert "is not this database's key" in product.log_tail()
        key.write_bytes(kept)
        product.start()
        message, _ = send(product, "again@example.net")
        product.wait_state(message, "delivered")
    finally:
        product.close()


@pytest.mark.row("9")
@pytest.mark.timeout(240)
def test_a_database_that_is_newer_than_the_program_is_refused_and_an_older_one_is_backed_up(tmp_path: Path) -> None:
    product = Product(tmp_path / "demo")
    try:
        product.start()
        assert product.stop() == 0
        import sqlite3

        database = sqlite3.connect(product.folder / "console.db")
        with database:
            database.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('mail', '9999_later', '2099-01-01')")
        database.close()
        product.start(wait=False)
        assert product.process is not None
        assert product.process.wait(60) == 2
        assert "newer than this program: it has mail.9999_later" in product.log_tail()

        database = sqlite3.connect(product.folder / "console.db")
        with database:
            database.execute("DELETE FROM django_migrations WHERE name = '9999_later'")
            database.execute("DROP TABLE jobs_joblease")
            database.execute("DELETE FROM django_migrations WHERE app = 'jobs'")
        database.close()
        product.start()
        wait_until(lambda: list((product.folder / "backups").glob("before-upgrade-*.tar")), "it was backed up", 5)
    finally:
        product.close()
