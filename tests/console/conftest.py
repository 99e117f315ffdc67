"""The console's tests run on both databases: whoever asks for `database` runs once on SQLite and once on PostgreSQL.

Each test has a database of its own, a copy of a migrated one, so commits, threads and processes are as real as in production.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")

import django

django.setup()

from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client

from postbud.console import installation
from postbud.console.configuration import ConsoleSettings
from postbud.console.databases import database_settings
from postbud.console.link.secrets import set_key
from tests.console.postgres import TEMPLATE, Postgres

Blocker = Any


def use_database(console: ConsoleSettings) -> None:
    """Let Django speak to the database that settings name, from now on and in every thread."""
    connections.close_all()
    configured = database_settings(console)
    configured["CONN_MAX_AGE"] = None
    connections.settings["default"] = connections.configure_settings({"default": configured})["default"]
    with contextlib.suppress(AttributeError):  # this thread has not used it yet
        del connections["default"]


@pytest.fixture(scope="session")
def _sqlite_template(django_db_blocker: Blocker) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, django_db_blocker.unblock():
        use_database(ConsoleSettings(data=folder))
        call_command("migrate", interactive=False, verbosity=0)
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connections.close_all()
        yield Path(folder) / "console.db"


@pytest.fixture(scope="session")
def postgres(django_db_blocker: Blocker) -> Iterator[Postgres]:
    """A PostgreSQL server with a migrated database to copy."""
    missing = Postgres.missing()
    if missing:
        pytest.skip(missing)
    server = Postgres()
    try:
        server.start()
        server.create(TEMPLATE)
        with django_db_blocker.unblock():
            use_database(ConsoleSettings(database=server.url(TEMPLATE)))
            call_command("migrate", interactive=False, verbosity=0)
            connections.close_all()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Which database this test runs on."""
    return str(request.param)


@pytest.fixture
def console(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ConsoleSettings]:
    """Settings of a console with a data folder of its own and an empty, migrated database."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    installation.make_key(data)
    if engine == "sqlite":
        shutil.copy(request.getfixturevalue("_sqlite_template"), data / "console.db")
        yield ConsoleSettings(data=str(data))
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.fresh()
    try:
        yield ConsoleSettings(data=str(data), database=server.url(name))
    finally:
        server.drop(name)


@pytest.fixture
def database(
    console: ConsoleSettings, engine: str, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Blocker
) -> Iterator[str]:
    """Open the database to the test; gives its engine, sqlite or postgresql."""
    monkeypatch.setattr(django_settings, "CONSOLE", console)
    monkeypatch.setenv("POSTBUD_CONSOLE", msgspec.json.encode(console).decode())  # for processes that the test starts
    set_key.cache_clear()
    with django_db_blocker.unblock():
        use_database(console)
        yield engine
        connections.close_all()


@pytest.fixture
def configure(database: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Change settings of the console for this test: `configure(demo=True)`."""

    def change(**values: Any) -> ConsoleSettings:
        changed = msgspec.structs.replace(django_settings.CONSOLE, **values)
        monkeypatch.setattr(django_settings, "CONSOLE", changed)
        return changed

    return change


@pytest.fixture
def client(database: str) -> Client:
    """A browser that speaks to the pages by their public address."""
    return Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
