"""Leases of loops: one process at a time runs a loop, and another takes over when it stops renewing."""

from datetime import datetime, timedelta

from django.db import connection

from postbud.console.fields import to_micros
from postbud.console.transaction import write

# all accounts: loops belong to the installation
_TAKE = """
INSERT INTO jobs_joblease (name, owner, until) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
WHERE jobs_joblease.owner = excluded.owner OR jobs_joblease.until < %s
RETURNING owner
"""
_GIVE_BACK = "UPDATE jobs_joblease SET until = 0 WHERE name = %s AND owner = %s"  # all accounts: as above


def take(name: str, owner: str, now: datetime, lasts: timedelta) -> bool:
    """Take or renew a lease; tell whether it is ours. One statement, so two never both have it."""
    with write(), connection.cursor() as cursor:
        cursor.execute(_TAKE, (name, owner, to_micros(now + lasts), to_micros(now)))
        return cursor.fetchone() is not None


def give_back(name: str, owner: str) -> None:
    """Let the next one begin at once. Does nothing when the lease is another's."""
    with write(), connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK, (name, owner))
