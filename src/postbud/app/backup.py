"""`postbud backup` and `postbud restore`: one tar file that brings a console back, with its keys, certificates and settings.

A backup is made while all runs: the database as of one moment (SQLite's backup, `pg_dump`), then the files beside it. The spool
is left out on purpose: queued mail is short-lived, and a copy of it would deliver again what has left since. Invariants: what
stands in the manifest, the last member, has its checksum there; nothing is put in place before all of it was checked; nothing
that was there is deleted, it is set aside.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec

from postbud.app.config import Settings
from postbud.app.demo import MARK, NOTED
from postbud.app.demo import SETTINGS as SETTINGS_FILE
from postbud.model.settings import SettingsError

_FORMAT = 1
_MANIFEST = "manifest.json"  # also what tells that nothing was cut off
_SQLITE = "console.db"
_POSTGRES = "console.pgdump"
_FOLDERS = ("keys", "tls", "content")
_FILES = ("token.key", SETTINGS_FILE, NOTED, MARK)
_CHUNK = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself. `files`: name → [SHA-256 hex, octets]; `migrations`: the schema that it holds."""

    format: int
    version: str
    made_at: str
    hostname: str
    database: str  # sqlite or postgresql
    migrations: list[str]
    files: dict[str, tuple[str, int]]


def run_backup(settings: Settings, target: str) -> int:
    """Write a backup; `-` is standard output."""
    manifest = write_backup(settings, sys.stdout.buffer) if target == "-" else backup_to(settings, Path(target))
    sys.stderr.write(
        f"backup made: {len(manifest.files)} files; the spool is not in it (queued mail is short-lived: mirror its disk)\n"
    )
    return 0


def backup_to(settings: Settings, path: Path) -> Manifest:
    """Write a backup to a file that is never seen half written."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            manifest = write_backup(settings, file)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return manifest


def write_backup(settings: Settings, out: BinaryIO) -> Manifest:
    """Write a backup to a stream."""
    from django.db import connection  # noqa: PLC0415 (only the console loads Django)

    from postbud.app.control_plane import start_django  # noqa: PLC0415 (as above)

    start_django(settings)
    files: dict[str, tuple[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=settings.data) as folder:
        dumped = Path(folder) / (_SQLITE if connection.vendor == "sqlite" else _POSTGRES)
        if connection.vendor == "sqlite":
            _copy_sqlite(dumped)
        else:
            _dump_postgres(settings.config.console.database, dumped)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            files[dumped.name] = _add(tar, dumped.name, dumped)
            for name, path in _beside(settings):
                with contextlib.suppress(FileNotFoundError):  # retention may take a file away meanwhile
                    files[name] = _add(tar, name, path)
            manifest = Manifest(
                _FORMAT, version("postbud"), datetime.fromtimestamp(time.time(), UTC).isoformat(), settings.hostname,
                connection.vendor, applied_migrations(), files,
            )  # fmt: skip
            octets = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            entry = tarfile.TarInfo(_MANIFEST)
            entry.size, entry.mode, entry.mtime = len(octets), 0o600, int(time.time())
            tar.addfile(entry, BytesIO(octets))
    return manifest


def applied_migrations() -> list[str]:
    """Give the migrations that the database has, such as `accounts.0001_initial`."""
    from django.db import connection  # noqa: PLC0415 (only the console loads Django)
    from django.db.migrations.recorder import MigrationRecorder  # noqa: PLC0415 (as above)

    return sorted(f"{app}.{name}" for app, name in MigrationRecorder(connection).applied_migrations())


def _copy_sqlite(target: Path) -> None:
    """Copy as of one moment; others read and write meanwhile."""
    from django.db import connection  # noqa: PLC0415 (only the console loads Django)

    connection.ensure_connection()
    copy = sqlite3.connect(target)
    try:
        connection.connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        copy.close()


def _dump_postgres(database: str, target: Path) -> None:
    words, environment = _postgres(database)
    _tool(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}", *words], environment)


def _postgres(database: str) -> tuple[list[str], dict[str, str]]:
    """Give options and environment of PostgreSQL's tools: a password never stands in a list of processes."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415 (only the console loads it)

    parts = {key: str(value) for key, value in conninfo_to_dict(database).items() if value is not None}
    password = parts.pop("password", None)
    environment = dict(os.environ) | ({"PGPASSWORD": password} if password is not None else {})
    return [f"--dbname={make_conninfo('', **parts)}"], environment


def _tool(words: list[str], environment: dict[str, str]) -> None:
    if shutil.which(words[0]) is None:
        raise SettingsError(f"{words[0]} is not installed: it comes with PostgreSQL's client programs")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 (no shell, our words)
    if done.returncode != 0:
        raise OSError(f"{words[0]}: {done.stderr.strip()[-500:]}")


def _beside(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Give what stands beside the database, by its name in the backup."""
    for name in _FILES:
        if (settings.data / name).exists():
            yield name, settings.data / name
    for folder in _FOLDERS:
        for path in sorted((settings.data / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield str(path.relative_to(settings.data)), path
    if settings.file is not None and settings.file.parent != settings.data and settings.file.exists():
        yield f"settings/{settings.file.name}", settings.file


def _add(tar: tarfile.TarFile, name: str, path: Path) -> tuple[str, int]:
    """Add a file as it is now; give its checksum and size."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
        hashing = _Hashing(file)
        tar.addfile(entry, hashing)
    return hashing.digest.hexdigest(), size


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read octets."""
        octets = self._file.read(size)
        self.digest.update(octets)
        return octets


# -- restore ---------------------------------------------------------------------------------------------------------------


def run_restore(settings: Settings, source: Path, *, force: bool) -> int:
    """Check a backup and put it in place.

    Raises:
        SettingsError: The backup is damaged, something runs on the data, or there is data and no `force`.
    """
    data = settings.data
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=data) as folder:
        staged = Path(folder)
        manifest = unpack(source, staged)
        _fits(settings, manifest)
        tops = {name.split("/")[0] for name in manifest.files}
        taken = [name for name in sorted({*tops, _SQLITE}) if (data / name).exists()]
        if taken and not force:
            raise SettingsError(f"{data} holds data ({', '.join(taken)}); --force sets it aside")
        if manifest.database == "postgresql":
            words, environment = _postgres(settings.config.console.database)
            clean = ["--clean", "--if-exists"] if force else []
            _tool(
                ["pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", *clean, *words,
                 str(staged / _POSTGRES)],
                environment,
            )  # fmt: skip
        aside = data / f"before-restore-{datetime.fromtimestamp(time.time(), UTC):%Y%m%dT%H%M%S}"
        for name in [*taken, f"{_SQLITE}-wal", f"{_SQLITE}-shm"]:
            if (data / name).exists():
                aside.mkdir(mode=0o700, exist_ok=True)
                (data / name).rename(aside / name)
        for name in sorted(tops - {_POSTGRES}):
            (staged / name).rename(data / name)
    _begin_anew(settings)
    sys.stderr.write(f"restored the backup of {manifest.made_at}, {len(manifest.files)} files, all checksums right\n")
    if aside.exists():
        sys.stderr.write(f"what was there is in {aside}\n")
    return 0


def unpack(source: Path, folder: Path) -> Manifest:
    """Unpack a backup and check every file of it against the manifest.

    Raises:
        SettingsError: It is no whole backup.
    """
    try:
        with tarfile.open(source, mode="r|") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise SettingsError(f"{source} is no whole backup: {error}") from error
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise SettingsError(f"{source} is no whole backup: it ends before its manifest") from error
    if manifest.format != _FORMAT:
        raise SettingsError(f"{source} has format {manifest.format}; this program knows {_FORMAT}")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {_MANIFEST}
    if found != set(manifest.files):
        other = ", ".join(sorted(found ^ set(manifest.files)))
        raise SettingsError(f"{source}: its files are not those of its manifest: {other}")
    for name, (digest, size) in manifest.files.items():
        if (folder / name).stat().st_size != size or _digest(folder / name) != digest:
            raise SettingsError(f"{source}: {name} is damaged; nothing was changed")
    return manifest


def _fits(settings: Settings, manifest: Manifest) -> None:
    ours = "postgresql" if settings.config.console.database else "sqlite"
    if manifest.database != ours:
        raise SettingsError(f"the backup is of {manifest.database}, but console.database means {ours}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _begin_anew(settings: Settings) -> None:
    """Have every relay take the directory from the start, and no command of the past act again (row 62)."""
    from postbud.app.control_plane import start_django  # noqa: PLC0415 (only the console loads Django)

    start_django(settings)
    from postbud.console.link.models import LinkRecord  # noqa: PLC0415 (after Django's setup)
    from postbud.console.link.publish import begin_life, withdraw  # noqa: PLC0415 (as above)
    from postbud.console.transaction import write  # noqa: PLC0415 (as above)

    with write():
        for key in LinkRecord.objects.filter(kind="command", gone=False).values_list("key", flat=True):
            withdraw("command", key)
        begin_life()
