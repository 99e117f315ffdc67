"""The one way to write: a transaction that tells relays of what it published, as its last statements.

Every function of a `services` module runs in it. Invariant: what relays are told is committed with what it tells of, and
numbered in the order of commits (`link.publish`). Nested blocks join the outer one, and fail it when they fail.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from postbud.console.link.publish import collecting


@contextmanager
def write() -> Iterator[None]:
    """Run the block in one transaction; `publish` and `withdraw` may be called inside."""
    with transaction.atomic(savepoint=False), collecting():
        yield
