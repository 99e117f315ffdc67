"""The embedded database: one writer at a time whoever it is, readers never wait, nothing is lost."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone

from postbud.console.accounts.models import CacheEntry
from postbud.console.sqlite.base import writes
from postbud.console.sqlite.lock import WriteLock, locked

_WRITER = """
import sys, django
django.setup()
from django.db import connection, transaction
from django.utils import timezone
from postbud.console.accounts.models import CacheEntry
name, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    if number % 3 == 0:
        with transaction.atomic():
            CacheEntry.objects.create(cache_key=f"{name}-{number}", value="x" * 3000, expires=timezone.now())
    elif number % 3 == 1:
        CacheEntry.objects.create(cache_key=f"{name}-{number}", value="x" * 3000, expires=timezone.now())
    else:
        CacheEntry.objects.filter(cache_key__startswith=name).count()
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO console_cache (cache_key, value, expires) VALUES (%s, %s, %s) RETURNING cache_key",
                (f"{name}-{number}", "y", timezone.now()),
            )
            assert cursor.fetchone() == (f"{name}-{number}",)
    if number % 20 == 19:
        connection.close()  # closing the last connection checkpoints: under the lock too
"""


_HOLDER = """
import sys, time, pathlib
from postbud.console.sqlite.lock import WriteLock
WriteLock(pathlib.Path(sys.argv[1])).take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def engine() -> str:
    """These tests are about SQLite alone."""
    return "sqlite"


@pytest.fixture
def embedded(database: str) -> Path:
    """The database's file."""
    return Path(str(connection.settings_dict["NAME"]))


def entry(key: str) -> CacheEntry:
    return CacheEntry(cache_key=key, value="x", expires=timezone.now())


def test_many_processes_write_at_once_and_nothing_is_lost_or_locked(embedded: Path) -> None:
    count, names = 60, ("a", "b", "c", "d")
    started = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", _WRITER, name, str(count)], stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    for process in started:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    assert CacheEntry.objects.count() == count * len(names)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        assert cursor.fetchone() == ("ok",)


def test_threads_of_one_process_take_turns_as_processes_do(embedded: Path) -> None:
    problems: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for number in range(40):
                with transaction.atomic():
                    seen = CacheEntry.objects.filter(cache_key__startswith=name).count()
                    assert seen == number
                    entry(f"{name}-{number}").save(force_insert=True)
        except BaseException as error:
            problems.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert CacheEntry.objects.count() == 160


def test_a_reader_does_not_wait_for_a_writer(embedded: Path) -> None:
    entry("before").save(force_insert=True)
    inside, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            entry("during").save(force_insert=True)
            inside.set()
            go_on.wait(20)
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert inside.wait(20)
    assert CacheEntry.objects.count() == 1  # at once, and as it was committed
    go_on.set()
    writer.join()
    assert CacheEntry.objects.count() == 2


def test_the_lock_is_free_after_every_end_of_a_transaction(embedded: Path) -> None:
    lock: WriteLock = connection.lock  # type: ignore[attr-defined]
    with transaction.atomic():
        entry("a").save(force_insert=True)
        assert lock.held
    assert not lock.held
    with contextlib.suppress(RuntimeError), transaction.atomic():
        assert lock.held
        raise RuntimeError
    assert not lock.held
    with pytest.raises(IntegrityError):
        entry("a").save(force_insert=True)
    assert not lock.held
    with transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic():
            entry("a").save(force_insert=True)
        assert lock.held  # the outer one goes on
        connection.close()
    assert not lock.held
    with locked(embedded):
        pass


def test_a_statement_outside_of_a_transaction_is_one_of_its_own(embedded: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO console_cache (cache_key, value, expires) VALUES ('a', 'x', %s), ('b', 'x', %s) RETURNING cache_key",
            (timezone.now(), timezone.now()),
        )
        other = sqlite3.connect(embedded)
        assert other.execute("SELECT count(*) FROM console_cache").fetchone() == (2,)  # committed before its rows are read
        other.close()
        assert [row[0] for row in cursor] == ["a", "b"]
        rows = [(key, "x", timezone.now()) for key in ("c", "d", "a")]
        with pytest.raises(IntegrityError):
            cursor.executemany("INSERT INTO console_cache (cache_key, value, expires) VALUES (%s, %s, %s)", rows)
    assert CacheEntry.objects.count() == 2  # all or none


def test_a_killed_writer_leaves_no_lock(embedded: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(embedded)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    entry("after").save(force_insert=True)


def test_the_wal_is_moved_into_the_database_when_it_has_grown(embedded: Path) -> None:
    wal = embedded.with_name(embedded.name + "-wal")
    largest = 0
    for number in range(60):
        with transaction.atomic():
            CacheEntry.objects.create(cache_key=str(number), value="x" * 400_000, expires=timezone.now())
        largest = max(largest, wal.stat().st_size)
    assert largest < 24 * 1024 * 1024
    assert embedded.stat().st_size > 15 * 1024 * 1024


def test_after_it_was_moved_small_writes_wait_in_the_wal_again(embedded: Path) -> None:
    """The WAL's file keeps its size: a backend that goes by it moves pages after every commit, with two syncs each."""
    for number in range(45):
        CacheEntry.objects.create(cache_key=str(number), value="x" * 400_000, expires=timezone.now())
    moved = embedded.stat().st_size
    before = connection._wal_octets()
    entry("small").save(force_insert=True)
    after = connection._wal_octets()
    assert embedded.stat().st_size == moved
    assert 0 < after[1] - before[1] < 100_000


_READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0.05)
connection.execute("PRAGMA wal_autocheckpoint = 0")
print(connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0])
"""


def test_looking_at_the_wal_index_takes_no_lock_of_sqlite_away(embedded: Path) -> None:
    """A process that closes a descriptor of a file loses its POSIX locks on it: a reader's pages would be written over."""
    entry("a").save(force_insert=True)
    reading = sqlite3.connect(embedded)
    reading.execute("BEGIN")
    assert reading.execute("SELECT count(*) FROM console_cache").fetchone() == (1,)
    for key in "bcd":
        entry(key).save(force_insert=True)
        assert connection._wal_octets()[0] > 0
    busy = subprocess.run([sys.executable, "-c", _READER, str(embedded)], capture_output=True, text=True, check=True)
    assert busy.stdout == "1\n"  # the reader's mark is still locked
    reading.rollback()
    reading.close()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", False), ("  select 1", False), ("-- why\nSELECT 1", False), ("/* a */ INSERT INTO x VALUES (1)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False), ("WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a", True),
        ("PRAGMA foreign_keys", False), ("UPDATE x SET a = 1", True), ("CREATE TABLE x (a)", True), ("SAVEPOINT a", False),
        ("VACUUM", True), ("", True),
    ],
)  # fmt: skip
def test_it_is_known_which_statements_write(statement: str, expected: bool) -> None:
    assert writes(statement) is expected
