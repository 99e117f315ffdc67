"""Secrets of credentials: their stored forms, and comparing them. Microseconds; no I/O.

In a directory file `sha256$<salt hex>$<SHA-256(salt ‖ secret) hex>`, from a console `hmac$<n>$<salt hex>$<HMAC-SHA256(pepper n,
salt ‖ secret) hex>`. The secrets are machine-made, so that nothing slower is needed.
"""

import hashlib
import hmac
from collections.abc import Mapping

_SHA256_HEX = hashlib.sha256().digest_size * 2
_DUMMY_DIGEST = "0" * _SHA256_HEX


class PepperMissingError(LookupError):
    """The pepper of a stored form is not here: nobody can tell whether a secret is right."""


def hash_secret(secret: bytes, salt: bytes) -> str:
    """Give the stored form of a machine-made secret in a directory file."""
    return f"sha256${salt.hex()}${hashlib.sha256(salt + secret).hexdigest()}"


def is_stored_form(stored: str) -> bool:
    """Whether a text is the stored form of a secret in a directory file."""
    scheme, _, rest = stored.partition("$")
    salt, _, digest = rest.partition("$")
    return scheme == "sha256" and len(digest) == _SHA256_HEX and _octets(salt + digest) is not None


def verify_secret(stored: str, secret: bytes, peppers: Mapping[str, bytes] | None = None) -> bool:
    """Compare a secret with its stored form, in constant time for equal forms. A form that is none matches nothing.

    Raises:
        PepperMissingError: Its pepper is not among `peppers`.
    """
    scheme, _, rest = stored.partition("$")
    number = ""
    if scheme == "hmac":
        number, _, rest = rest.partition("$")
    salt_hex, _, digest = rest.partition("$")
    salt = _octets(salt_hex)
    if scheme not in ("sha256", "hmac") or salt is None:
        return False
    if scheme == "hmac":
        pepper = (peppers or {}).get(number)
        if pepper is None:
            raise PepperMissingError(f"pepper {number}")
        computed = hmac.digest(pepper, salt + secret, hashlib.sha256).hex()
    else:
        computed = hashlib.sha256(salt + secret).hexdigest()
    return hmac.compare_digest(computed.encode(), digest.lower().encode())


def dummy_form(peppers: Mapping[str, bytes]) -> str:
    """Give a stored form that no secret has, to compare with when a name is unknown: that costs the same."""
    number = next(iter(peppers), None)
    return f"sha256$00${_DUMMY_DIGEST}" if number is None else f"hmac${number}$00${_DUMMY_DIGEST}"


def _octets(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
