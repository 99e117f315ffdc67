"""DKIM keys of domains: made by us, RSA-2048 and Ed25519 side by side, sealed before they are stored.

Invariant: a private key leaves this module sealed under `<account>/<domain>/<selector>`. RFC 6376, 8301, 8463.
"""

import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postbud.console.installation import seal_value
from postbud.mime.dkim import load_key, public_record

_RSA_BITS = 2048
_EXPONENT = 65537
_SELECTOR_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_SELECTOR_CHARACTERS = 6


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A fresh key: what the table holds of it."""

    selector: str
    algorithm: str
    sealed: bytes
    public_record: str


def make_keys(account: str, domain: str) -> list[MadeKey]:
    """Make a pair of keys for a domain. Takes a tenth of a second: not inside of a transaction."""
    stem = "pb" + "".join(secrets.choice(_SELECTOR_LETTERS) for _ in range(_SELECTOR_CHARACTERS))
    privates = (
        (f"{stem}r", rsa.generate_private_key(_EXPONENT, _RSA_BITS)),
        (f"{stem}e", ed25519.Ed25519PrivateKey.generate()),
    )
    made = []
    for selector, private in privates:
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = load_key(pem, checked=True)
        sealed = seal_value(f"{account}/{domain}/{selector}", pem)
        made.append(MadeKey(selector, key.algorithm, sealed, public_record(key)))
    return made
