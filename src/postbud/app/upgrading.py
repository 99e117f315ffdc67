"""Brings the console's database to this program's version before the console starts: backup first, one at a time, never back.

Runs in a process of its own, whose exit status tells the supervisor: 0 done, 1 try again (the database does not answer), 2 only
a person can mend it (the database is newer than the program).
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from postbud.app.backup import backup_to
from postbud.app.config import Settings
from postbud.app.control_plane import start_django
from postbud.app.locks import held
from postbud.model.link import SecretRecord
from postbud.model.sealed import SealError
from postbud.model.settings import SettingsError

_ADVISORY_LOCK = 0x706F7374627564  # "postbud"


def prepare_console(settings: Settings, *, demo: bool) -> int:
    """Upgrade the schema if it is older, and seed a demo; give the exit status.

    Raises:
        SettingsError: The database is newer than this program.
    """
    start_django(settings, demo=demo)
    from django.db.utils import OperationalError  # noqa: PLC0415 (after Django's setup)

    try:
        with held(settings.data / "run" / "upgrade.lock"), _one_machine():
            upgrade(settings)
            require_key(settings)
            from postbud.console.founding import ensure_installation  # noqa: PLC0415 (after Django's setup)

            ensure_installation()
            if demo:
                from postbud.app.seed import seed  # noqa: PLC0415 (only the demo loads it)

                seed(settings)
            else:
                say_who_is_missing(settings)
    except OperationalError as error:
        sys.stderr.write(f"postbud: the console's database does not answer: {error}\n")
        return 1
    return 0


def require_key(settings: Settings) -> None:
    """Look whether the installation key opens what the database holds.

    Raises:
        SettingsError: It does not (row 61).
    """
    from postbud.console.installation import key_path, unseal_value  # noqa: PLC0415 (after Django's setup)
    from postbud.console.link.models import LinkRecord  # noqa: PLC0415 (as above)

    for key, body in LinkRecord.objects.filter(kind="secret", gone=False).order_by("seq").values_list("key", "body")[:1]:
        try:
            unseal_value(key, msgspec.json.decode(bytes(body), type=SecretRecord).sealed)
        except SealError as error:
            raise SettingsError(
                f"{key_path(settings.data)} is not this database's key: bring it back from a backup, or copy it from the "
                "console's other machine"
            ) from error


def say_who_is_missing(settings: Settings) -> None:
    """Tell how the first person gets in, as long as there is none."""
    from postbud.console.accounts.models import Person  # noqa: PLC0415 (after Django's setup)

    if not Person.objects.exists():
        sys.stderr.write(
            "postbud: nobody can sign in yet; make the first operator: "
            f"postbud person create you@example.com --operator --password-stdin --data {settings.data}\n"
        )


def upgrade(settings: Settings) -> None:
    """Apply what is pending; a database with anything in it is backed up before.

    Raises:
        SettingsError: The database is newer than this program.
    """
    from django.core.management import call_command  # noqa: PLC0415 (after Django's setup)
    from django.db import connection  # noqa: PLC0415 (as above)
    from django.db.migrations.executor import MigrationExecutor  # noqa: PLC0415 (as above)

    executor = MigrationExecutor(connection)
    applied = set(executor.loader.applied_migrations)
    unknown = sorted(f"{app}.{name}" for app, name in applied - set(executor.loader.disk_migrations))
    if unknown:
        raise SettingsError(
            f"the console's database is newer than this program: it has {', '.join(unknown[:5])}. "
            f"Run the newer program, or restore a backup of before the upgrade (data/backups/)"
        )
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return
    if applied:
        folder = settings.data / "backups"
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / f"before-upgrade-{datetime.fromtimestamp(time.time(), UTC):%Y%m%dT%H%M%S}.tar"
        backup_to(settings, path)
        for old in sorted(folder.glob("before-upgrade-*.tar"))[: -settings.config.console.backups]:
            old.unlink()
        sys.stderr.write(f"postbud: upgrading the console's database; a backup is in {path}\n")
    call_command("migrate", interactive=False, verbosity=0)


@contextmanager
def _one_machine() -> Iterator[None]:
    """With PostgreSQL, keep consoles of other machines from upgrading at the same time."""
    from django.db import connection  # noqa: PLC0415 (after Django's setup)

    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:  # of this connection, for as long as it is open
        cursor.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", (_ADVISORY_LOCK,))
