"""People's passwords: how they are hashed and which are refused.

Argon2id with 46 MiB, one pass, one lane (OWASP, ASVS 5.0 appendix); a few at a time, so that a flood of sign-ins takes
neither all memory nor all cores. Invariant: no rule of composition and no expiry; 64 characters and more are fine (ASVS 6.2).
"""

import threading
from typing import Any

from django.contrib.auth.hashers import Argon2PasswordHasher
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

SHORTEST = 12
LONGEST = 512
_AT_ONCE = 2
_WAIT_SECONDS = 20.0
_slots = threading.BoundedSemaphore(_AT_ONCE)
_LEAST_PART = 3  # letters of a name that count as one
_LEAST_LEFT = 5  # different characters beside names
_WORDS = ("postbud", "password", "adgangskode")


class BusyError(RuntimeError):
    """Too many passwords are being checked at this moment."""


class Argon2Hasher(Argon2PasswordHasher):
    """Argon2id as said above; a hash made with other parameters is made anew at the next sign-in."""

    time_cost = 1
    memory_cost = 46 * 1024
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        """Hash a password."""
        with _Slot():
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        """Compare a password with its hash."""
        with _Slot():
            return super().verify(password, encoded)


class _Slot:
    """One of the few places for hashing."""

    def __enter__(self) -> None:
        if not _slots.acquire(timeout=_WAIT_SECONDS):
            raise BusyError("too many sign-ins at once")

    def __exit__(self, *_: object) -> None:
        _slots.release()


class LengthValidator:
    """Refuses passwords that are too short, or so long that hashing them is work."""

    def validate(self, password: str, user: Any = None) -> None:  # noqa: ARG002  # Django's signature
        """Look at a password.

        Raises:
            ValidationError: It is too short or too long.
        """
        if len(password) < SHORTEST:
            raise ValidationError(_("Use at least %d characters; a few words in a row are easy to keep in mind.") % SHORTEST)
        if len(password) > LONGEST:
            raise ValidationError(ngettext("Use at most %d character.", "Use at most %d characters.", LONGEST) % LONGEST)

    def get_help_text(self) -> str:
        """Say what is asked for."""
        return _("At least %d characters; a few words in a row are easy to keep in mind.") % SHORTEST


class ContextValidator:
    """Refuses passwords that are little more than our name, or the person's own name or address."""

    def validate(self, password: str, user: Any = None) -> None:
        """Look at a password.

        Raises:
            ValidationError: It is made of what everybody would guess first.
        """
        left = password.casefold()
        for part in sorted({*_WORDS, *_parts(user)}, key=len, reverse=True):
            left = left.replace(part, "")
        if len(set(left)) < _LEAST_LEFT:
            raise ValidationError(_("This password is too easy to guess: it holds little beside names and repetition."))

    def get_help_text(self) -> str:
        """Say what is asked for."""
        return _("Not your name or address.")


def _parts(user: Any) -> set[str]:
    texts = [str(getattr(user, name, "") or "").casefold() for name in ("email", "name")]
    parts = {part for text in texts for part in text.replace("@", " ").replace(".", " ").split()}
    return {part for part in parts if len(part) >= _LEAST_PART}
