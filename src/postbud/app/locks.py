"""Locks on a data folder: one supervisor a role, one upgrade at a time.

Held by open files, so that kill -9 leaves none behind.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from postbud.model.settings import SettingsError


@contextmanager
def held(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold a lock; wait for it, or with a `refusal` stop at once with that text.

    Raises:
        SettingsError: Somebody holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise SettingsError(refusal) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def roles_held(data: Path, roles: tuple[str, ...]) -> Iterator[None]:
    """Hold the roles ("relay", "console") that a supervisor plays on a data folder.

    Raises:
        SettingsError: Another one plays them.
    """
    with ExitStack() as stack:
        for role in roles:
            stack.enter_context(held(data / "run" / f"{role}.lock", f"another postbud runs as {role} on {data}; stop it first"))
        yield
