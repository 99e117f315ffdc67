"""The installation key: 32 octets in `DATA/keys/installation.key` that every sealed record opens with.

Owns reading and making the file. Invariant: it is never in the database, never overwritten, and readable by its owner only.
"""

import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from postbud.console.configuration import current
from postbud.model.sealed import KEY_OCTETS, NONCE_OCTETS, seal, unseal


class InstallationKeyError(RuntimeError):
    """The installation key is missing or is none; the text says what to do."""


def installation_key() -> bytes:
    """Give the key of this installation.

    Raises:
        InstallationKeyError: There is none.
    """
    return _read(key_path(current().folder))


def key_path(data: Path) -> Path:
    """Tell where the key is."""
    return data / "keys" / "installation.key"


def make_key(data: Path) -> Path:
    """Make the key unless there is one; whoever is first wins. Gives the file."""
    path = key_path(data)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_OCTETS))
        os.fsync(descriptor)
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        made.unlink()
    return path


def seal_value(record_id: str, value: bytes) -> bytes:
    """Seal a value for a record under the installation key."""
    return seal(installation_key(), record_id, value, secrets.token_bytes(NONCE_OCTETS))


def unseal_value(record_id: str, sealed: bytes) -> bytes:
    """Open a value that was sealed for a record.

    Raises:
        SealError: It was sealed under another key or for another record.
    """
    return unseal(installation_key(), record_id, sealed)


def derived_key(data: Path, purpose: str) -> str:
    """Give a key of one purpose, made of the installation key; a random one as long as there is none."""
    try:
        return hmac.digest(_read(key_path(data)), purpose.encode(), "sha256").hex()
    except InstallationKeyError:
        return secrets.token_hex(32)


@lru_cache(maxsize=16)
def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise InstallationKeyError(f"{path} is missing: bring it back from a backup; without it nothing sealed opens") from None
    if len(key) != KEY_OCTETS:
        raise InstallationKeyError(f"{path} is no installation key: it has {len(key)} octets, not {KEY_OCTETS}")
    return key
