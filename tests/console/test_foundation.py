"""The ground that the console's tests stand on."""

import pytest
from django.core.management import call_command
from django.db import connection

from postbud.console.accounts.models import Person


def test_each_test_has_an_empty_database_of_its_engine(database: str) -> None:
    assert connection.vendor == database
    assert Person.objects.count() == 0
    Person.objects.create_user(email="Ane@Example.COM", password=None)
    assert Person.objects.get().email == "ane@example.com"


def test_models_and_migrations_agree(database: str) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize("known", ["journal_mode wal", "synchronous 2", "wal_autocheckpoint 0", "foreign_keys 1"])
def test_sqlite_is_open_as_the_design_says(database: str, known: str) -> None:
    if database != "sqlite":
        pytest.skip("about SQLite")
    name, value = known.split()
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {name}")
        assert str(cursor.fetchone()[0]) == value
