"""The doctor's look at this machine: clock, disk, certificate, database, and whether workers run."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from postbud.app.config import Settings
from postbud.app.control import sockets
from postbud.app.doctor_findings import FAIL, OK, WARN, Finding
from postbud.smtpd.settings import TlsMode

_GIB = 1 << 30
_LEAST_INODES = 10_000
_FUTURE_SECONDS = 120.0
_WARN_DAYS = 14
_SYNCED_BY = (
    "/run/systemd/timesync/synchronized",
    "/run/chrony/chronyd.pid",
    "/run/chronyd.pid",
    "/run/ntpd.pid",
    "/var/run/ntpd.pid",
)


def look_at_machine(settings: Settings) -> list[Finding]:
    """Look at what is on this machine."""
    return [_clock(settings), *_disk(settings), _certificate(settings), *_database(settings), _workers(settings)]


def _clock(settings: Settings) -> Finding:
    now = time.time()
    newest = max((_changed_at(path) for path in _own_files(settings.data)), default=0.0)
    if newest > now + _FUTURE_SECONDS:
        ahead = round(newest - now)
        told = f"files of ours were written {ahead} s in the future: the clock went back"
        return Finding("clock", FAIL, told, "set the clock (chronyd, systemd-timesyncd); signatures and tokens carry the time")
    if not any(Path(name).exists() for name in _SYNCED_BY):
        told = "nothing is seen that keeps the clock right"
        return Finding("clock", WARN, told, "run chronyd or systemd-timesyncd; a clock that is off breaks signatures")
    return Finding("clock", OK, f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC, kept by a time service")


def _disk(settings: Settings) -> list[Finding]:
    folder = settings.data if settings.data.exists() else settings.data.parent
    free, needed = shutil.disk_usage(folder).free, settings.config.spool.reserve_octets + _GIB
    stat = os.statvfs(folder)
    findings = []
    if free < settings.config.spool.reserve_octets:
        told = f"{free / _GIB:.1f} GiB free in {folder}: less than the reserve, mail is refused"
        findings.append(Finding("disk", FAIL, told, "make room, or move data_dir to a larger disk"))
    elif free < needed:
        findings.append(Finding("disk", WARN, f"{free / _GIB:.1f} GiB free in {folder}", "make room before mail is refused"))
    else:
        findings.append(Finding("disk", OK, f"{free / _GIB:.1f} GiB free in {folder}"))
    if stat.f_files and stat.f_favail < _LEAST_INODES:
        findings.append(
            Finding(
                "disk", FAIL, f"{stat.f_favail} inodes free in {folder}", "remove small files, or make a file system with more"
            )
        )
    return findings


def _certificate(settings: Settings) -> Finding:
    relay = settings.config.relay
    if not any(table.tls != TlsMode.NONE.value for table in relay.listener) and not settings.config.api.tls:
        return Finding("tls", WARN, "no listener offers TLS", 'give listeners tls = "starttls" or "implicit"')
    path = settings.path(relay.certificate_file) if relay.certificate_file else settings.data / "tls" / "certificate.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return Finding("tls", WARN, f"{path} is not there yet", "start Postbud once, or give relay.certificate_file")
    except ValueError as error:
        return Finding("tls", FAIL, f"{path} is no certificate: {error}", "put a PEM certificate there")
    days = (certificate.not_valid_after_utc - datetime.fromtimestamp(time.time(), UTC)).days
    names = _names(certificate)
    if days < 0:
        return Finding("tls", FAIL, f"the certificate ended {-days} days ago", "renew it; it is taken without a restart")
    if not any(_covers(name, settings.hostname) for name in names):
        told = f"the certificate is for {', '.join(sorted(names)) or 'nobody'}, not for {settings.hostname}"
        return Finding("tls", FAIL, told, "get one for relay.hostname")
    if days < _WARN_DAYS:
        return Finding("tls", WARN, f"the certificate ends in {days} days", "renew it; it is taken without a restart")
    if certificate.issuer == certificate.subject:
        return Finding(
            "tls", WARN, "the certificate is one that Postbud made itself", "devices that check it want one of an authority"
        )
    return Finding("tls", OK, f"for {settings.hostname}, {days} days left")


def _database(settings: Settings) -> list[Finding]:
    url, file = settings.config.console.database, settings.data / "console.db"
    if url:
        import psycopg  # noqa: PLC0415 (only where there is such a database)

        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                row = connection.execute("SELECT extract(epoch FROM now())").fetchone()
        except psycopg.Error as error:
            return [
                Finding(
                    "database", FAIL, f"PostgreSQL does not answer: {error}".strip(), "look at console.database and the server"
                )
            ]
        apart = abs(float(row[0]) - time.time()) if row is not None else 0.0
        if apart > _FUTURE_SECONDS:
            return [Finding("clock", FAIL, f"the database's clock is {apart:.0f} s off ours", "set both clocks")]
        return [Finding("database", OK, "PostgreSQL answers")]
    if not file.exists():
        return [
            Finding(
                "database", WARN, "there is no console on this machine yet", "start `postbud serve`, or none is meant to be"
            )
        ]
    try:
        embedded = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
        try:
            count = embedded.execute("SELECT COUNT(*) FROM django_migrations").fetchone()[0]
        finally:
            embedded.close()
    except sqlite3.Error as error:
        return [Finding("database", FAIL, f"{file}: {error}", "`postbud restore` brings a backup back")]
    return [Finding("database", OK, f"SQLite, {file.stat().st_size / 1024 / 1024:.0f} MiB, {count} schema steps")]


def _workers(settings: Settings) -> Finding:
    running = list(sockets(settings.data / "run")) if (settings.data / "run").exists() else []
    if not running:
        return Finding("workers", WARN, "no relay worker runs on this machine", "start `postbud serve` or `postbud relay`")
    return Finding("workers", OK, f"{len(running)} run")


def _own_files(data: Path) -> Iterable[Path]:
    return [path for pattern in ("console.db", "spool/*/spool.db", "replica/*", "run/*.beat") for path in data.glob(pattern)]


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def _covers(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])
