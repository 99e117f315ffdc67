"""The written form of keys: `pbk_<credential id without crd_>_<secret><check>` of the sending API, `pbm_…` to manage.

The prefix lets scanners of source code find a key that leaked; the check (CRC-32 of all before it, base 62) lets them, and us,
tell a key from a look-alike without asking anybody. Only the secret is hashed and compared; the id finds the rest.
"""

import re
import zlib
from collections.abc import Sequence

PREFIX = "pbk_"
MANAGEMENT_PREFIX = "pbm_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_CHARACTERS = 32  # 190 bits
CHECK_CHARACTERS = 6
_IDS = {PREFIX: "crd_", MANAGEMENT_PREFIX: "key_"}  # what the id that is not written out begins with
_KEY = re.compile(
    rf"(pbk_|pbm_)([A-Za-z0-9_\-]{{1,64}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CHECK_CHARACTERS}}})"
)


def new_secret(octets: Sequence[int]) -> str:
    """Make a secret of random octets: 64 at least, of which those below 248 count, so that every character is as likely.

    Raises:
        ValueError: Too few octets.
    """
    letters = [ALPHABET[octet % 62] for octet in octets if octet < 248]
    if len(letters) < SECRET_CHARACTERS:
        raise ValueError("too few random octets")
    return "".join(letters[:SECRET_CHARACTERS])


def write_key(identity: str, secret: str, prefix: str = PREFIX) -> str:
    """Give the text that is shown once to the person who makes a key."""
    body = f"{prefix}{identity.removeprefix(_IDS[prefix])}_{secret}"
    return body + _check(body)


def read_key(text: str, prefix: str = PREFIX) -> tuple[str, str] | None:
    """Give id and secret of a key of that kind; None when the text is none (a typing mistake, most likely)."""
    match = _KEY.fullmatch(text)
    if match is None or match[1] != prefix or _check(text[:-CHECK_CHARACTERS]) != match[4]:
        return None
    return _IDS[prefix] + match[2], match[3]


def _check(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    letters = []
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, 62)
        letters.append(ALPHABET[digit])
    return "".join(reversed(letters))
