"""Sealed values: AES-256-GCM under the installation key, bound to the id of the record that carries them.

Layout: 1 octet version (1), 12 octets nonce, ciphertext, 16 octets tag. The id is the additional data, so that a sealed value
that is put into another record does not open.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_OCTETS = 32
NONCE_OCTETS = 12
_VERSION = b"\x01"
_LEAST_OCTETS = len(_VERSION) + NONCE_OCTETS + 16


class SealError(ValueError):
    """A sealed value does not open: another key, another record, or damage."""


def seal(key: bytes, record_id: str, value: bytes, nonce: bytes) -> bytes:
    """Seal a value for a record. `nonce` is 12 fresh random octets."""
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, value, record_id.encode())


def unseal(key: bytes, record_id: str, sealed: bytes) -> bytes:
    """Open a sealed value.

    Raises:
        SealError: It is not what was sealed for this record under this key.
    """
    if len(sealed) < _LEAST_OCTETS or sealed[:1] != _VERSION:
        raise SealError(f"{record_id}: no sealed value")
    nonce = sealed[1 : 1 + NONCE_OCTETS]
    try:
        return AESGCM(key).decrypt(nonce, sealed[1 + NONCE_OCTETS :], record_id.encode())
    except InvalidTag as error:
        raise SealError(f"{record_id}: sealed under another key or for another record") from error
