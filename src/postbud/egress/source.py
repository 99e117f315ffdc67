"""Egress sources: which local address a connection comes from and what name it gives. Pools are sets of them."""

import random
from dataclasses import dataclass

from postbud.egress.settings import SourceSettings

DEFAULT_SOURCE_ID = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """A local address (None: the system chooses) and its HELO name."""

    id: str
    address: str | None
    helo: str
    pool: str | None = None

    @property
    def family(self) -> int | None:
        """4 or 6 when the address binds us to one; None when either will do."""
        if self.address is None:
            return None
        return 6 if ":" in self.address else 4


class Sources:
    """Chooses a source for a pool. Without configured sources everything leaves by the system's choice."""

    def __init__(self, settings: tuple[SourceSettings, ...], hostname: str, dice: random.Random) -> None:
        self._dice = dice
        self._all = tuple(Source(one.id, one.address, one.helo or hostname, one.pool) for one in settings)
        self._default = Source(DEFAULT_SOURCE_ID, None, hostname)

    def choose(self, pool: str | None) -> Source | None:
        """Give a source of the pool, by dice. None: the pool has no source here, and another's reputation is not borrowed."""
        if not self._all:
            return self._default
        members = [source for source in self._all if source.pool == pool]
        if not members:
            return self._default if pool is None else None
        return self._dice.choice(members)
