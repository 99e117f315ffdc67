"""Identifiers: 16 octets that sort by time and carry the spool that made them.

Layout (big endian): 6 octets milliseconds since 1970, 2 octets counter within the millisecond's run,
4 octets spool id, 4 octets random. As text: a prefix and 26 characters of base32hex in lower case, which sorts as the
octets do. Bytes inside (spool, tokens), text outside (logs, events, pages).
"""

from collections.abc import Callable
from typing import NewType

AccountId = NewType("AccountId", str)
ServerId = NewType("ServerId", str)
CredentialId = NewType("CredentialId", str)
MessageId = NewType("MessageId", str)
DeliveryId = NewType("DeliveryId", str)
EventId = NewType("EventId", str)

ID_OCTETS = 16
_TEXT_LENGTH = 26
_RANDOM_AT_ONCE = 4096


_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_SPARE_BITS = 2  # 26 characters hold 130 bits
_SHIFTS = tuple(range(120, -1, -10))


def to_text(prefix: str, octets: bytes) -> str:
    """Give the public form of 16 octets, such as `msg_01h3…`."""
    number = int.from_bytes(octets, "big") << _SPARE_BITS
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


def to_octets(text: str) -> bytes:
    """Give the 16 octets of a public id.

    Raises:
        ValueError: The text is no id of ours.
    """
    _, separator, encoded = text.rpartition("_")
    if not separator or len(encoded) != _TEXT_LENGTH or not (encoded.isascii() and encoded.isalnum()):
        raise ValueError("not an id")
    try:
        number = int(encoded, 32)  # base32hex has the digits of Python's base 32
    except ValueError as error:
        raise ValueError("not an id") from error
    if number & 3 or encoded != encoded.lower():
        raise ValueError("not an id")
    return (number >> _SPARE_BITS).to_bytes(ID_OCTETS, "big")


class IdSource:
    """Makes ids for one spool. Clock and dice are arguments, so that tests can play them."""

    def __init__(self, spool_id: int, clock_ms: Callable[[], int], dice: Callable[[int], bytes]) -> None:
        """Take the spool's 32-bit number, a clock in milliseconds since 1970, and a source of random octets."""
        self._spool = spool_id.to_bytes(4, "big")
        self._clock_ms = clock_ms
        self._dice = dice
        self._last_ms = 0
        self._counter = 0
        self._random = b""
        self._used = 0

    def octets(self) -> bytes:
        """Give the next 16 octets; never smaller than the last, also when the clock steps back."""
        now = self._clock_ms()
        if now > self._last_ms:
            self._last_ms, self._counter = now, 0
        else:
            self._counter += 1
            if self._counter > 0xFFFF:
                self._last_ms, self._counter = self._last_ms + 1, 0
        if self._used == len(self._random):
            self._random, self._used = self._dice(_RANDOM_AT_ONCE), 0
        self._used += 4
        random = self._random[self._used - 4 : self._used]
        return self._last_ms.to_bytes(6, "big") + self._counter.to_bytes(2, "big") + self._spool + random

    def message(self) -> MessageId:
        """Give a new message id."""
        return MessageId(to_text("msg", self.octets()))

    def delivery(self) -> DeliveryId:
        """Give a new delivery id."""
        return DeliveryId(to_text("dlv", self.octets()))

    def event(self) -> EventId:
        """Give a new event id."""
        return EventId(to_text("evt", self.octets()))


def spool_of(text: str) -> int:
    """Tell which spool made an id.

    Raises:
        ValueError: The text is no id of ours.
    """
    return int.from_bytes(to_octets(text)[8:12], "big")
