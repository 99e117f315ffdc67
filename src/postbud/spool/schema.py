"""The tables, the connections, and what is checked before either is trusted.

Owns the DDL, the schema version and its migrations, the SQLite version check and the integrity check at open. One
connection writes and checkpoints; the others only read.
"""

import math
import secrets
import time
from pathlib import Path

import apsw

from postbud.spool.values import SpoolUnusable

SQLITE_FIRST_GOOD = (3, 51, 3)  # 3.7.0 to 3.51.2 can corrupt a WAL that is reset while another connection looks at it
VERSION = 4
FILE_NAME = "spool.db"
PAGE_OCTETS = 4096  # 8 and 16 KiB were no faster at accepting and slower at settling
_APPLICATION_ID = 0x50427564  # "PBud"

# message.body_file stands before the large columns, so that looking at it never follows an overflow chain.
# delivery lies in the order of its messages: a message's deliveries are neighbours, and no second index finds them.
# event.message is the key of the message's id; its index finds what happened to one message; NULL in rows of older versions.
# idempotency holds what a request with an Idempotency-Key was answered, in the commit of its message.
# delivery_due holds account and domain so that a look for due mail passes over a full queue without reading its rows.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE message (
    key INTEGER PRIMARY KEY, body_file TEXT, meta_sum INTEGER NOT NULL, sum INTEGER NOT NULL, meta BLOB NOT NULL,
    header BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX message_file ON message (body_file) WHERE body_file IS NOT NULL;
CREATE TABLE delivery (
    message INTEGER NOT NULL, key INTEGER NOT NULL, held INTEGER NOT NULL, due_at REAL NOT NULL, sum INTEGER NOT NULL,
    data BLOB NOT NULL, account TEXT NOT NULL, domain TEXT NOT NULL, PRIMARY KEY (message, key)) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (held, due_at, account, domain);
CREATE TABLE event (seq INTEGER PRIMARY KEY, at REAL NOT NULL, sum INTEGER NOT NULL, data BLOB NOT NULL, message INTEGER);
CREATE TABLE signature (message INTEGER PRIMARY KEY, sum INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE alien (id BLOB PRIMARY KEY, key INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE suspect (delivery TEXT PRIMARY KEY, crashes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE quarantine (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, why TEXT NOT NULL, body_file TEXT,
    data BLOB);
"""
# How many rows there are, kept by whatever statement changes it and true to every commit: counting a million takes too long.
_TALLY = """
CREATE TABLE tally (queued INTEGER NOT NULL, held INTEGER NOT NULL, quarantined INTEGER NOT NULL);
INSERT INTO tally SELECT count(*) - total(held), total(held), (SELECT count(*) FROM quarantine) FROM delivery;
CREATE TRIGGER delivery_added AFTER INSERT ON delivery
    BEGIN UPDATE tally SET queued = queued + 1 - new.held, held = held + new.held; END;
CREATE TRIGGER delivery_changed AFTER UPDATE OF held ON delivery WHEN new.held <> old.held
    BEGIN UPDATE tally SET queued = queued + old.held - new.held, held = held + new.held - old.held; END;
CREATE TRIGGER delivery_removed AFTER DELETE ON delivery
    BEGIN UPDATE tally SET queued = queued - 1 + old.held, held = held - old.held; END;
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine BEGIN UPDATE tally SET quarantined = quarantined + 1; END;
CREATE TRIGGER quarantine_removed AFTER DELETE ON quarantine BEGIN UPDATE tally SET quarantined = quarantined - 1; END;
"""

# New tables stand at the end: what lies before them keeps its pages, by which a spool without its first page is read.
_LATER_TABLES = """
CREATE INDEX event_message ON event (message) WHERE message IS NOT NULL;
CREATE TABLE idempotency (key BLOB PRIMARY KEY, at REAL NOT NULL, sum INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX idempotency_at ON idempotency (at);
"""

# version a spool has → statements that bring it one further, each run in one transaction with the new version's number
_MIGRATIONS: dict[int, str] = {
    1: "DROP INDEX delivery_due; CREATE INDEX delivery_due ON delivery (held, due_at, account, domain);",
    2: _TALLY,
    3: f"ALTER TABLE event ADD COLUMN message INTEGER; {_LATER_TABLES}",
}


def check_sqlite(version: str) -> None:
    """Refuse a SQLite that can lose a WAL.

    Raises:
        SpoolUnusable: It is too old.
    """
    if tuple(map(int, version.split("."))) < SQLITE_FIRST_GOOD:
        raise SpoolUnusable(
            f"SQLite {version} has the WAL reset bug; {'.'.join(map(str, SQLITE_FIRST_GOOD))} or newer is needed"
        )


def open_writer(path: Path) -> apsw.Connection:
    """Open the connection that writes, making the file when missing; nothing is checked yet."""
    check_sqlite(apsw.sqlite_lib_version())
    connection = apsw.Connection(str(path))
    path.chmod(0o600)
    connection.set_busy_timeout(5_000)
    connection.execute(f"PRAGMA page_size = {PAGE_OCTETS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """Open the connection that reads."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(5_000)
    connection.execute("PRAGMA cache_size = -8192")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def prepare(connection: apsw.Connection) -> int:
    """Make or migrate the tables; give the spool's number, made at the first start and kept.

    Raises:
        SpoolUnusable: The file is another program's, or a newer Postbud's.
    """
    if not connection.pragma("application_id") and not connection.table_exists("main", "meta"):
        create(connection)
    if connection.pragma("application_id") != _APPLICATION_ID:
        raise SpoolUnusable("the file is not a Postbud spool")
    version = _meta(connection, "version")
    if version > VERSION:
        raise SpoolUnusable(f"the spool has schema {version}, made by a newer Postbud; this one knows {VERSION}")
    while version < VERSION:
        with connection:
            connection.execute(_MIGRATIONS[version])
            version += 1
            connection.execute("UPDATE meta SET value = ? WHERE name = 'version'", (version,))
    return _meta(connection, "spool")


def find_damage(connection: apsw.Connection, seconds: float | None) -> str | None:
    """Look for structural damage, for so long at most; give the first finding.

    None: as long as it takes, and indexes are compared with their tables too, which the quick look leaves out.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > until, 100_000)
    try:
        found = connection.execute(f"PRAGMA {'integrity_check' if seconds is None else 'quick_check'}(1)").get
    except apsw.InterruptError:
        return None
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return str(error)
    finally:
        connection.set_progress_handler(None)
    return None if found == "ok" else str(found)


def create(connection: apsw.Connection) -> None:
    """Make the tables of an empty spool, with a number of its own."""
    with connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(_TABLES + _TALLY + _LATER_TABLES)
        connection.execute("INSERT INTO meta VALUES ('version', ?), ('spool', ?)", (VERSION, secrets.randbits(32)))


def recount(connection: apsw.Connection) -> int:
    """Count the deliveries in one walk, put the tally right if it is not, and give the highest key there is."""
    walk = "SELECT count(*), coalesce(sum(held), 0), coalesce(max(key), 0) FROM delivery"
    total, held, highest = next(connection.execute(walk))
    counted = [(total - held, held, connection.execute("SELECT count(*) FROM quarantine").get)]
    if connection.execute("SELECT queued, held, quarantined FROM tally").fetchall() != counted:
        with connection:
            connection.execute("DELETE FROM tally")
            connection.execute("INSERT INTO tally VALUES (?, ?, ?)", counted[0])
    return max(int(highest), int(connection.execute("SELECT coalesce(max(key), 0) FROM message").get))


def set_spool_id(connection: apsw.Connection, spool_id: int) -> None:
    """Give a rebuilt spool its old number."""
    connection.execute("UPDATE meta SET value = ? WHERE name = 'spool'", (spool_id,))


def page_one(template: Path, octets: int) -> bytes:
    """Give the first page of a spool that has so many octets: the header and schema of an empty one."""
    template.unlink(missing_ok=True)
    connection = open_writer(template)
    create(connection)
    connection.close()
    page = bytearray(template.read_bytes()[:PAGE_OCTETS])
    template.unlink()
    page[28:32] = (octets // PAGE_OCTETS).to_bytes(4, "big")  # size in pages; the empty spool's free list is empty already
    return bytes(page)


def _meta(connection: apsw.Connection, name: str) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).get)
