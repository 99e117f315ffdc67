"""SASL PLAIN (RFC 4616) and LOGIN (as old devices speak it) as AUTH carries them (RFC 4954): base64 in, name and secret out.

Decides nothing: whether name and secret are right is the gate's business. It only says when they cannot be anybody's.
"""

import binascii
import re
from collections.abc import Callable

import msgspec

MAX_LINE_OCTETS = 12_288  # RFC 4954 s4
MAX_NAME_CHARACTERS = 256
MAX_SECRET_OCTETS = 1_024  # capped before anybody hashes it (row F8)
MECHANISMS = (b"PLAIN", b"LOGIN")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SaslError(Exception):
    """The exchange cannot go on: not base64, wrong parts, or `cancelled` by the client."""

    def __init__(self, *, cancelled: bool = False) -> None:
        super().__init__("cancelled" if cancelled else "malformed")
        self.cancelled = cancelled


class Credentials(msgspec.Struct, frozen=True):
    """Name and secret. Not `plausible`: authorization for another, controls in the name, absurd lengths; refuse unasked."""

    username: str
    secret: bytes
    plausible: bool


Step = bytes | Credentials  # the challenge in base64, or the result


class Exchange:
    """One AUTH exchange. Give `start` the initial response if there was one, then each line to `step`."""

    __slots__ = ("_next", "_username")

    def __init__(self, mechanism: bytes) -> None:
        self._username = b""
        self._next: Callable[[bytes], Step] = self._plain if mechanism == b"PLAIN" else self._login_name

    def start(self, initial: bytes | None) -> Step:
        """Begin. `=` is an empty initial response. Raises `SaslError`."""
        if initial is not None:
            return self._next(b"" if initial == b"=" else _decode(initial))
        return b"" if self._next == self._plain else b"VXNlcm5hbWU6"

    def step(self, line: bytes) -> Step:
        """Take a response. Raises `SaslError`."""
        if line == b"*":
            raise SaslError(cancelled=True)
        return self._next(_decode(line))

    def _plain(self, message: bytes) -> Step:
        parts = message.split(b"\0")
        if len(parts) != 3:
            raise SaslError
        authorized, authenticated, secret = parts
        return _credentials(authenticated, secret, honest=authorized in (b"", authenticated))

    def _login_name(self, message: bytes) -> Step:
        self._username = message
        self._next = self._login_secret
        return b"UGFzc3dvcmQ6"

    def _login_secret(self, message: bytes) -> Step:
        return _credentials(self._username, message, honest=True)


def _credentials(name: bytes, secret: bytes, *, honest: bool) -> Credentials:
    username = name.decode("utf-8", "backslashreplace")
    plausible = (
        honest
        and 0 < len(username) <= MAX_NAME_CHARACTERS
        and 0 < len(secret) <= MAX_SECRET_OCTETS
        and not _CONTROL.search(username)
    )
    return Credentials(username[:MAX_NAME_CHARACTERS], secret if plausible else b"", plausible)


def _decode(line: bytes) -> bytes:
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise SaslError from error
