"""Hourly caps of accounts, servers and credentials, held across a node's workers by one mmapped file (GCRA).

A slot is 16 octets: 8 of the hash of whose cap it is, 8 of its theoretical arrival time (seconds since 1970, double). All caps
of one credential are read and written under one byte-range lock, 2-6 µs, all of them or none; only what has a cap pays it.
A file that is lost gives everybody one fresh hour, never a refusal.
"""

import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from postbud.link.replica import Grant
from postbud.model.refusal import Refusal, Why

_SLOT = struct.Struct("<8sd")
_SLOTS = 262_144
_PROBES = 64
_HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Cap:
    """One cap that stands over a credential."""

    what: str
    id: str
    hourly: int


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

    def check(self, grant: Grant) -> None:
        """Refuse at MAIL when nothing is left of some cap (450 4.7.28), without using anything.

        Raises:
            Refusal: RATE; the text says after how many seconds to try again.
        """
        if caps := _caps(grant):
            self._use(caps, 0)

    def take(self, grant: Grant, deliveries: int) -> None:
        """Use all caps for so many deliveries, all of them or none.

        Raises:
            Refusal: RATE, as `check`.
        """
        if caps := _caps(grant):
            self._use(caps, deliveries)

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        os.close(self._file)

    def _use(self, caps: list[_Cap], deliveries: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            now = self._clock()
            later = []
            for cap in caps:
                key = _key(cap.what, cap.id)
                offset = self._slot(key)
                later.append((offset, key, self._after(cap, offset, now, deliveries)))
            if deliveries:
                for offset, key, after in later:
                    _SLOT.pack_into(self._map, offset, key, after)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _after(self, cap: _Cap, offset: int, now: float, deliveries: int) -> float:
        """Give a cap's arrival time after its use; refuse what is beyond it."""
        interval = _HOUR_SECONDS / max(cap.hourly, 1)
        _, arrival = _SLOT.unpack_from(self._map, offset)
        used_until = max(now, arrival if arrival <= now + 2 * _HOUR_SECONDS else now)
        after: float = used_until + interval * deliveries
        limit = now + _HOUR_SECONDS + 1e-6
        wanted = after if deliveries else used_until + interval
        if wanted > limit or cap.hourly <= 0:
            wait = max(1, int(wanted - limit) + 1)
            text = f"the hourly cap of {cap.hourly} of this {cap.what} is used up; try again in {wait} seconds"
            raise Refusal(Why.RATE, text, f"{cap.what} {cap.id}")
        return after

    def _slot(self, key: bytes) -> int:
        start = int.from_bytes(key, "little") % _SLOTS
        oldest, oldest_arrival = start * _SLOT.size, float("inf")
        for step in range(_PROBES):
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


def _caps(grant: Grant) -> list[_Cap]:
    caps = []
    if grant.credential.hourly_cap is not None:
        caps.append(_Cap("credential", grant.credential.id, grant.credential.hourly_cap))
    if grant.server.hourly_cap is not None:
        caps.append(_Cap("server", grant.server.id, grant.server.hourly_cap))
    if grant.account.hourly_cap is not None:
        caps.append(_Cap("account", grant.account.id, grant.account.hourly_cap))
    return caps


@lru_cache(maxsize=65_536)
def _key(what: str, identifier: str) -> bytes:
    text = identifier if what == "credential" else f"{what} {identifier}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
