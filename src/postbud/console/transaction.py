"""The one way to write: a transaction that tells relays of what it published, as its last statements.

Every function of a `services` module runs in it. Invariant: what relays are told is committed with what it tells of, and
numbered in the order of commits (`link.publish`). Nested blocks join the outer one, and fail it when they fail.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from postbud.console.link.publish import collecting

_OURS = 0x70620000_00000000  # "pb", so that the locks are nobody else's


@contextmanager
def write() -> Iterator[None]:
    """Run the block in one transaction; `publish` and `withdraw` may be called inside."""
    with transaction.atomic(savepoint=False), collecting():
        yield


def alone(name: str) -> None:
    """Let nobody else pass a point of this name until the transaction ends: for rules about many rows. Inside of `write()`."""
    if connection.vendor == "postgresql":  # with SQLite one writes at a time anyway
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_OURS | zlib.crc32(name.encode()),))
