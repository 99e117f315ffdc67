"""Secrets of endpoints: 32 random octets, written `whsec_…` as Standard Webhooks does, sealed at rest."""

import base64
import secrets

from postbud.console.installation import seal_value, unseal_value

_SECRET_OCTETS = 32
_PREFIX = "whsec_"


def new_secret() -> str:
    """Make a secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_OCTETS)).decode()


def seal_secret(record: str, secret: str) -> bytes:
    """Seal a secret for its record."""
    return seal_value(record, secret.encode())


def open_secret(record: str, sealed: bytes) -> str:
    """Open a sealed secret.

    Raises:
        SealError: It was sealed under another key or for another record.
    """
    return unseal_value(record, sealed).decode()
