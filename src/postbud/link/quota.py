"""Hourly caps of credentials, held across a node's workers by one mmapped file (GCRA).

A slot is 16 octets: 8 of the credential's hash, 8 of its theoretical arrival time (seconds since 1970, double). Reading and
writing a slot happens under one byte-range lock, 2-6 µs; only credentials with a cap pay it. A file that is lost gives every
credential one fresh hour, never a refusal.
"""

import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from postbud.model.account import Credential
from postbud.model.refusal import Refusal, Why

_SLOT = struct.Struct("<8sd")
_SLOTS = 16384
_HOUR_SECONDS = 3600.0


class HourlyCaps:
    """Says whether a credential may send so many more now. A burst may use the whole hour's allowance at once."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Open or make the file."""
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        octets = _SLOTS * _SLOT.size
        try:
            os.posix_fallocate(self._file, 0, octets)
        except OSError:  # a full disk: writing to a hole of a mapped file would kill the process, so this one counts alone
            self._map = mmap.mmap(-1, octets)
        else:
            self._map = mmap.mmap(self._file, octets)

    def check(self, credential: Credential) -> None:
        """Refuse at MAIL when nothing is left (450 4.7.28), without using anything."""
        if credential.hourly_cap is not None:
            self._use(credential, credential.hourly_cap, 0)

    def take(self, credential: Credential, deliveries: int) -> None:
        """Use the allowance for so many deliveries, all or none.

        Raises:
            Refusal: RATE; the text says after how many seconds to try again.
        """
        if credential.hourly_cap is not None:
            self._use(credential, credential.hourly_cap, deliveries)

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        os.close(self._file)

    def _use(self, credential: Credential, cap: int, deliveries: int) -> None:
        key = hashlib.blake2b(credential.id.encode(), digest_size=8).digest()
        interval = _HOUR_SECONDS / max(cap, 1)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            offset = self._slot(key)
            _, arrival = _SLOT.unpack_from(self._map, offset)
            now = self._clock()
            used_until = max(now, arrival if arrival <= now + 2 * _HOUR_SECONDS else now)
            after = used_until + interval * deliveries
            limit = now + _HOUR_SECONDS + 1e-6
            over = after > limit if deliveries else used_until + interval > limit
            if over or cap <= 0:
                wait = max(1, int((after if deliveries else used_until + interval) - limit) + 1)
                raise Refusal(Why.RATE, f"hourly cap of {cap} is used up; try again in {wait} seconds", credential.id)
            if deliveries:
                _SLOT.pack_into(self._map, offset, key, after)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _slot(self, key: bytes) -> int:
        start = int.from_bytes(key, "little") % _SLOTS
        oldest, oldest_arrival = start * _SLOT.size, float("inf")
        for step in range(64):
            offset = (start + step) % _SLOTS * _SLOT.size
            found, arrival = _SLOT.unpack_from(self._map, offset)
            if found == key:
                return offset
            if found == bytes(8):
                _SLOT.pack_into(self._map, offset, key, 0.0)
                return offset
            if arrival < oldest_arrival:
                oldest, oldest_arrival = offset, arrival
        _SLOT.pack_into(self._map, oldest, key, 0.0)
        return oldest
