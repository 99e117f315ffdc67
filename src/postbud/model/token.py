"""Tokens: what our return paths, Feedback-IDs and unsubscribe links carry, so that what comes back proves whose it is.

Lower-case base32 without padding, 47 characters, of 29 octets: one of {version 2 bits, purpose 2 bits, key id 4 bits},
16 of the delivery or message id, 2 of the day (days since 1970), 10 of HMAC-SHA256 over all before it.
A token verifies only for its purpose. Return-path and Feedback-ID tokens end after 400 days.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

TOKEN_LENGTH = 47
MAX_AGE_DAYS = 400
_VERSION = 1
_MAC_OCTETS = 10
_OCTETS = 29


class Purpose(Enum):
    """What a token is for."""

    RETURN_PATH_DELIVERY = 0
    RETURN_PATH_MESSAGE = 1
    FEEDBACK_ID = 2
    UNSUBSCRIBE = 3


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys by id (0-15) and the one that makes new tokens."""

    keys: Mapping[int, bytes]
    current: int = 0

    def make(self, purpose: Purpose, id_octets: bytes, day: int) -> str:
        """Give the 47 characters for an id of 16 octets on a day since 1970."""
        head = bytes([_VERSION << 6 | purpose.value << 4 | self.current]) + id_octets + day.to_bytes(2, "big")
        mac = hmac.digest(self.keys[self.current], head, hashlib.sha256)[:_MAC_OCTETS]
        return _encode(head + mac)

    def verify(self, text: str, purpose: Purpose, today: int) -> bytes | None:
        """Give the 16 octets of the id when the token is ours, for this purpose and not too old; otherwise None.

        Letter case does not matter: some systems change it on the way.
        """
        if len(text) != TOKEN_LENGTH:
            return None
        try:
            octets = base64.b32decode(text.upper() + "=")
        except (binascii.Error, ValueError):
            return None
        if len(octets) != _OCTETS or octets[0] >> 6 != _VERSION or octets[0] >> 4 & 3 != purpose.value:
            return None
        key = self.keys.get(octets[0] & 15)
        if key is None:
            return None
        head, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
        if not hmac.compare_digest(hmac.digest(key, head, hashlib.sha256)[:_MAC_OCTETS], mac):
            return None
        age_days = today - int.from_bytes(octets[17:19], "big")
        if purpose is not Purpose.UNSUBSCRIBE and not -1 <= age_days <= MAX_AGE_DAYS:
            return None
        if _encode(octets) != text.lower():  # spare bits of the last character must be zero: one token, one text
            return None
        return octets[1:17]


def _encode(octets: bytes) -> str:
    return base64.b32encode(octets).rstrip(b"=").decode("ascii").lower()
