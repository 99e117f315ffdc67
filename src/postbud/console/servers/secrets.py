"""Secrets of credentials: made by us, shown once, kept as a keyed hash.

`hmac$<pepper n>$<salt hex>$<HMAC-SHA256(pepper n, salt ‖ secret) hex>`: relays verify it in microseconds, and a stolen database
without the installation key verifies nothing. Secrets have 120 bits and more, so nothing slower is needed (ASVS 6.5.2).
"""

import hmac
import secrets

import msgspec
from django.utils import timezone

from postbud.console.accounts.models import AccountStatus
from postbud.console.installation import seal_value, unseal_value
from postbud.console.link.models import LinkRecord
from postbud.console.link.publish import publish
from postbud.console.servers.models import Credential, CredentialKind, CredentialStatus, ServerStatus
from postbud.console.transaction import alone, write
from postbud.model.api_key import MANAGEMENT_PREFIX, read_key, write_key
from postbud.model.api_key import new_secret as new_api_secret
from postbud.model.link import SecretRecord
from postbud.model.sealed import KEY_OCTETS

SMTP_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no letter that a printer's panel shows like another
SMTP_CHARACTERS = 25  # 123 bits
_SALT_OCTETS = 16
_API_OCTETS = 128
_PEPPER = "1"
_SUFFIX_CHARACTERS = 5
_LONGEST_STEM = 20


def new_secret(credential: Credential) -> tuple[str, str]:
    """Make a secret for a credential: the text to show once, and what is kept of it. `ensure_pepper` was called before."""
    if credential.kind == CredentialKind.API:
        secret = new_api_secret(secrets.token_bytes(_API_OCTETS))
        return write_key(credential.id, secret), _hash(secret)
    secret = "".join(secrets.choice(SMTP_ALPHABET) for _ in range(SMTP_CHARACTERS))
    return secret, _hash(secret)


def new_management_key(identity: str) -> tuple[str, str]:
    """Make a key of the management API: the text to show once, and what is kept of it. `ensure_pepper` was called before."""
    secret = new_api_secret(secrets.token_bytes(_API_OCTETS))
    return write_key(identity, secret, MANAGEMENT_PREFIX), _hash(secret)


def matches(stored: str, secret: str) -> bool:
    """Tell whether a secret is the one that a stored hash is of."""
    return _matches(stored, secret)


def new_username(name: str) -> str:
    """Make a username that begins like the device's name and is nobody else's."""
    letters = [letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()]
    stem = "-".join(part for part in "".join(letters).split("-") if part)[:_LONGEST_STEM].strip("-") or "device"
    suffix = "".join(secrets.choice(SMTP_ALPHABET) for _ in range(_SUFFIX_CHARACTERS))
    return f"{stem}-{suffix}"


def ensure_pepper() -> None:
    """Make the pepper when there is none, and tell relays. Not inside of a transaction, unless it is there already."""
    record_id = f"pepper/{_PEPPER}"
    found = LinkRecord.objects.filter(kind="secret", key=record_id, gone=False)
    if found.exists():
        return
    with write():
        alone("pepper")
        if not found.exists():
            publish(SecretRecord(id=record_id, sealed=seal_value(record_id, secrets.token_bytes(KEY_OCTETS))))


def credential_of_key(text: str) -> Credential | None:
    """Give the API credential whose key a text is, if it may be used now; with its account and server.

    A key of a credential, server or account that is stopped is as good as none.
    """
    parts = read_key(text)
    if parts is None:
        return None
    credential = Credential.objects.select_related("account", "server").filter(id=parts[0], kind=CredentialKind.API).first()
    if credential is None or credential.status != CredentialStatus.ACTIVE:
        return None
    if (
        credential.account.status in (AccountStatus.BLOCKED, AccountStatus.CLOSED)
        or credential.server.status == ServerStatus.BLOCKED
    ):
        return None
    stored = [credential.secret_hash]
    if credential.former_hash and credential.former_until is not None and credential.former_until > timezone.now():
        stored.append(credential.former_hash)
    return credential if any(_matches(one, parts[1]) for one in stored) else None


def _hash(secret: str) -> str:
    salt = secrets.token_bytes(_SALT_OCTETS)
    return f"hmac${_PEPPER}${salt.hex()}${hmac.digest(_pepper(_PEPPER), salt + secret.encode(), 'sha256').hex()}"


def _matches(stored: str, secret: str) -> bool:
    scheme, _, rest = stored.partition("$")
    number, _, rest = rest.partition("$")
    salt, _, digest = rest.partition("$")
    if scheme != "hmac":
        return False
    computed = hmac.digest(_pepper(number), bytes.fromhex(salt) + secret.encode(), "sha256").hex()
    return hmac.compare_digest(computed, digest)


def _pepper(number: str) -> bytes:
    record_id = f"pepper/{number}"
    found = LinkRecord.objects.get(kind="secret", key=record_id, gone=False)
    return unseal_value(record_id, msgspec.json.decode(bytes(found.body), type=SecretRecord).sealed)
