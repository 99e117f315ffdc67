"""When a credential was last used, and from where: noted at ingest, at most once a minute for each."""

from collections.abc import Mapping
from datetime import UTC, timedelta

from postbud.console.fields import from_micros
from postbud.console.mail.statements import update_rows

_AT_MOST_EVERY = timedelta(minutes=1)
_MAX_ADDRESS = 45

# `at` and `before` are written as Django writes instants of SQLite; PostgreSQL reads the same text in the session's zone, UTC
_NOTE = update_rows(
    "servers_credential",
    {"account": "text", "id": "text", "at": "timestamptz", "before": "timestamptz", "address": "text"},
    "last_used_at = r.at, last_address = r.address",
    "d.account_id = r.account AND d.id = r.id AND (d.last_used_at IS NULL OR d.last_used_at < r.before)",
)


def note_uses(used: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    """Note uses, (account, credential) → (microseconds since 1970, address of the client). Inside of a transaction."""
    rows = []
    for (account, credential), (at, client) in sorted(used.items()):
        instant = from_micros(at).astimezone(UTC).replace(tzinfo=None)
        rows.append((account, credential, str(instant), str(instant - _AT_MOST_EVERY), client[:_MAX_ADDRESS]))
    _NOTE.run(rows)
