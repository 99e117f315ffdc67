"""Keys of the address sets, made when first asked for: `set/<account>` and `set/platform`, sealed as the link's records.

Relays hash with the same keys, so a key is published in the transaction that makes it, and never changes.
"""

import contextlib
import hashlib
import secrets as random_secrets
from functools import lru_cache
from typing import Any

import msgspec
from django.db import connection

from postbud.console.installation import installation_key
from postbud.console.link.publish import publish, to_signed
from postbud.console.transaction import write
from postbud.model.link import SecretRecord
from postbud.model.mailbox import Mailbox, MailboxError
from postbud.model.sealed import KEY_OCTETS, NONCE_OCTETS, seal, unseal

_FIND = "SELECT body FROM link_linkrecord WHERE kind = 'secret' AND key = %s AND NOT gone"  # all accounts: named by the key
_HASH_OCTETS = 8
_BLOCK_OCTETS = 64


@lru_cache(maxsize=100_000)
def set_key(owner: str) -> bytes:
    """Give the set key of an account, or of `platform`; make it when there is none. Not inside of a transaction."""
    record_id = f"set/{owner}"
    found = _stored(record_id)
    if found is None:
        with write():
            found = _stored(record_id)
            if found is None:
                found = random_secrets.token_bytes(KEY_OCTETS)
                nonce = random_secrets.token_bytes(NONCE_OCTETS)
                publish(SecretRecord(id=record_id, sealed=seal(installation_key(), record_id, found, nonce)))
    return found


def hash_mailbox(account: str, mailbox: str) -> int:
    """Give the hash of a mailbox in an account's sets, signed as columns hold it. Text that is no mailbox hashes as it is."""
    key = mailbox.lower()
    if not key.isascii() or '"' in key:
        with contextlib.suppress(MailboxError):
            key = Mailbox.parse(mailbox, smtputf8=True).key()
    inner, outer = (half.copy() for half in _begun(set_key(account)))
    inner.update(key.encode())
    outer.update(inner.digest())
    return to_signed(int.from_bytes(outer.digest()[:_HASH_OCTETS], "big"))


@lru_cache(maxsize=100_000)
def _begun(key: bytes) -> tuple[Any, Any]:
    """Give HMAC-SHA256 under a key as far as it is the same for all texts (RFC 2104).

    `hmac.digest` gives up the interpreter's lock at every call and must win it back: threads that ingest wait for each other.
    """
    block = key.ljust(_BLOCK_OCTETS, b"\0")
    return hashlib.sha256(bytes(octet ^ 0x36 for octet in block)), hashlib.sha256(bytes(octet ^ 0x5C for octet in block))


def _stored(record_id: str) -> bytes | None:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, (record_id,))
        found = cursor.fetchone()
    if found is None:
        return None
    record = msgspec.json.decode(bytes(found[0]), type=SecretRecord)
    return unseal(installation_key(), record_id, record.sealed)
