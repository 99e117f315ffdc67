"""Deliveries as a file: CSV for spreadsheets, NDJSON for programs. Rows in, lines out, one after the other.

Invariant: no cell of the CSV is a formula to a spreadsheet, whoever wrote its text (OWASP, CSV injection). RFC 4180; times are
UTC, ISO 8601.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC

import msgspec

from postbud.console.mail.models import DeliveryRow

COLUMNS = (
    "accepted_at", "message", "delivery", "state", "recipient", "subject", "from_domain", "server", "server_name", "credential",
    "credential_name", "site", "host", "reply_code", "enhanced", "reply", "reason", "attempts", "latency_ms", "tls", "source",
    "updated_at",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # spreadsheets read these as well
Value = str | int | None


def as_csv(rows: Iterable[DeliveryRow], names: Mapping[str, str]) -> Iterator[str]:
    """Give the header line, then one line a delivery. `names`: of servers and credentials by id."""
    for values in _table(rows, names):
        line = io.StringIO()
        csv.writer(line).writerow([harmless(value) for value in values])
        yield line.getvalue()


def as_ndjson(rows: Iterable[DeliveryRow], names: Mapping[str, str]) -> Iterator[bytes]:
    """Give one JSON object a delivery and line, with the CSV's columns as names."""
    for row in rows:
        yield msgspec.json.encode(dict(zip(COLUMNS, _values(row, names), strict=True))) + b"\n"


def harmless(value: Value) -> Value:
    """Give a value as a spreadsheet shows it and never computes it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _table(rows: Iterable[DeliveryRow], names: Mapping[str, str]) -> Iterator[tuple[Value, ...]]:
    yield COLUMNS
    for row in rows:
        yield _values(row, names)


def _values(row: DeliveryRow, names: Mapping[str, str]) -> tuple[Value, ...]:
    return (
        row.message_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        row.message,
        row.id,
        row.state,
        row.mailbox,
        row.subject,
        row.from_domain,
        row.server,
        names.get(row.server, ""),
        row.credential,
        names.get(row.credential, ""),
        row.site,
        row.host,
        row.reply_code or None,
        row.enhanced,
        row.reply,
        row.reason,
        row.attempts,
        row.latency_ms,
        row.tls,
        row.source,
        row.updated_at.astimezone(UTC).isoformat(timespec="milliseconds"),
    )
