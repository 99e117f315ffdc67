"""The SQL of ingest: one statement a table, the same meaning in both databases.

A `Statement` is one SQL text over many rows. SQLite runs it once a row (`executemany`, in C); PostgreSQL once a batch, over
the rows as one JSON parameter. Every row names its account. Invariants that stand here: a final state is never left, an older
event changes nothing, adding counts is one upsert.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from django.db import connection

from postbud.console.mail.models import WAITING
from postbud.console.mail.tally import COUNTS

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL over rows of `columns` (name → type in JSON). `sqlite` has a `%s` for each column, `postgresql` one for all rows."""

    columns: dict[str, str]
    sqlite: str
    postgresql: str

    def run(self, rows: Sequence[Row]) -> int:
        """Run it; give how many rows of the table it touched."""
        if not rows:
            return 0
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.executemany(self.sqlite, rows)
            else:
                cursor.execute(self.postgresql, (self._as_json(rows),))
            return int(cursor.rowcount)

    def _as_json(self, rows: Sequence[Row]) -> str:
        """Give rows as a JSON array of objects; octets are JSON already."""
        names = tuple(self.columns)
        if "json" in self.columns.values():
            rows = [[msgspec.Raw(value) if type(value) is bytes else value for value in row] for row in rows]
        return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()


def _insert(table: str, columns: dict[str, str], conflict: str, expressions: dict[str, str] | None = None) -> Statement:
    """Make `INSERT INTO table … ON CONFLICT …`; `expressions` says how PostgreSQL makes a column of the JSON's."""
    names = ", ".join(columns)
    marks = ", ".join(["%s"] * len(columns))
    values = ", ".join((expressions or {}).get(name, f"r.{name}") for name in columns)
    return Statement(
        columns,
        f"INSERT INTO {table} AS d ({names}) VALUES ({marks}) {conflict}",  # noqa: S608  # names of columns, no values
        f"INSERT INTO {table} AS d ({names}) SELECT {values} FROM {_records(columns)} {conflict}",  # noqa: S608  # likewise
    )


def update_rows(table: str, columns: dict[str, str], change: str, where: str) -> Statement:
    """Make `UPDATE table … FROM rows`: `change` and `where` call the row `r` and the table `d`."""
    marks = ", ".join([f"%s AS {name}" for name in columns])
    return Statement(
        columns,
        f"UPDATE {table} AS d SET {change} FROM (SELECT {marks}) AS r WHERE {where}",  # noqa: S608  # names of columns, no values
        f"UPDATE {table} AS d SET {change} FROM {_records(columns)} WHERE {where}",  # noqa: S608  # likewise
    )


def _records(columns: dict[str, str]) -> str:
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    return f"json_to_recordset(%s::json) AS r({types})"


_FINAL = f"d.state NOT IN ({', '.join(repr(str(state.value)) for state in sorted(WAITING))})"
_KEY = "d.account = r.account AND d.message = r.message AND d.id = r.id"

EVENTS = _insert(
    "mail_event",
    {"account": "text", "message": "text", "id": "text", "at": "bigint", "kind": "text", "delivery": "text", "data": "json"},
    "ON CONFLICT DO NOTHING",
    {"data": "convert_to(r.data::text, 'UTF8')"},
)

MESSAGES = _insert(
    "mail_message",
    {
        "account": "text",
        "id": "text",
        "at": "bigint",
        "server": "text",
        "credential": "text",
        "reverse_path": "text",
        "from_domain": "text",
        "signing_domain": "text",
        "subject": "text",
        "message_id": "text",
        "size_octets": "bigint",
        "recipients": "int",
        "client": "text",
        "tag": "text",
        "list": "text",
        "campaign": "text",
        "metadata": "text",
        "envid": "text",
        "findings": "text",
    },
    "ON CONFLICT DO NOTHING",
    {"findings": "r.findings::jsonb"},
)

# `held_by` and `returned` have statements of their own
DELIVERIES = _insert(
    "mail_delivery",
    {
        "account": "text",
        "message": "text",
        "id": "text",
        "message_at": "bigint",
        "server": "text",
        "credential": "text",
        "mailbox": "text",
        "mailbox_hash": "bigint",
        "recipient_domain": "text",
        "from_domain": "text",
        "subject": "text",
        "state": "text",
        "site": "text",
        "source": "text",
        "host": "text",
        "reply_code": "smallint",
        "enhanced": "text",
        "reply": "text",
        "reason": "text",
        "classified": "text",
        "tls": "text",
        "attempts": "int",
        "possible_duplicate": "boolean",
        "latency_ms": "bigint",
        "next_attempt_at": "bigint",
        "updated_at": "bigint",
    },
    f"""
ON CONFLICT (account, message, id) DO UPDATE SET
    state = CASE WHEN d.held_by <> 0 AND excluded.state IN ('queued', 'deferred') THEN 'held' ELSE excluded.state END,
    site = excluded.site, source = excluded.source, host = excluded.host, reply_code = excluded.reply_code,
    enhanced = excluded.enhanced, reply = excluded.reply, reason = excluded.reason, classified = excluded.classified,
    tls = excluded.tls, attempts = excluded.attempts, latency_ms = excluded.latency_ms,
    possible_duplicate = d.possible_duplicate OR excluded.possible_duplicate,
    next_attempt_at = excluded.next_attempt_at, updated_at = excluded.updated_at
WHERE NOT ({_FINAL}) AND d.updated_at <= excluded.updated_at
""",
)

# an acceptance that came after an outcome: what only it knows
LATE_ACCEPTANCES = update_rows(
    "mail_delivery",
    {"account": "text", "message": "text", "id": "text", "subject": "text", "mailbox": "text"},
    "subject = r.subject, mailbox = r.mailbox",
    f"{_KEY} AND d.subject = ''",
)

HOLDS = update_rows(
    "mail_delivery",
    {"account": "text", "message": "text", "id": "text", "put": "smallint", "cleared": "smallint", "at": "bigint"},
    f"""
    held_by = (d.held_by | r.put) & ~r.cleared,
    state = CASE WHEN {_FINAL} THEN d.state WHEN (d.held_by | r.put) & ~r.cleared <> 0 THEN 'held'
                 WHEN d.attempts > 0 THEN 'deferred' ELSE 'queued' END,
    updated_at = CASE WHEN d.updated_at < r.at AND NOT ({_FINAL}) THEN r.at ELSE d.updated_at END
""",
    _KEY,
)

RETURNS = update_rows(
    "mail_delivery",
    {"account": "text", "message": "text", "id": "text", "returned": "text"},
    "returned = r.returned",
    _KEY,
)

ROLLUPS = _insert(
    "mail_rollup",
    {"account": "text", "dimension": "text", "bucket_at": "bigint", "key": "text"} | dict.fromkeys(COUNTS, "bigint"),
    "ON CONFLICT (account, dimension, bucket_at, key) DO UPDATE SET "
    + ", ".join(f"{name} = d.{name} + excluded.{name}" for name in COUNTS),
)

LATENCIES = _insert(
    "mail_latency",
    {"account": "text", "dimension": "text", "bucket_at": "bigint", "key": "text", "bin": "smallint", "count": "bigint"},
    "ON CONFLICT (account, dimension, bucket_at, key, bin) DO UPDATE SET count = d.count + excluded.count",
)
