"""Asks the name servers of a domain itself, so that a record that was just made is seen at once, whatever others remember.

Owns the way there: which servers a zone has, their addresses, which of them may be asked (they are somebody else's choice).
When they do not answer as one needs, the recursive resolver's word counts. RFC 1034 s4.2 (zones), 1035.
"""

from collections.abc import Callable
from dataclasses import replace

from postbud.net.dns import Found, Lookup, Resolver, ResolverSettings, Unavailable
from postbud.net.guard import Guard, Verdict

_MOST_HOSTS = 4
_MOST_ADDRESSES = 6
_TIMEOUT_SECONDS = 3.0


class Authority:
    """The authoritative servers of one domain, found once; made anew for each check."""

    def __init__(self, domain: str, resolver: Resolver, guard: Guard, port: int, clock: Callable[[], float]) -> None:
        """`resolver` finds the servers; they are asked at `port` (53, unless the operator's own are elsewhere)."""
        self._domain = domain
        self._resolver = resolver
        self._guard = guard
        self._port = port
        self._clock = clock
        self._asked: Resolver | None = None
        self.zone = ""
        self.hosts: tuple[str, ...] = ()

    async def find(self) -> None:
        """Find the zone that the domain is in, and its servers; what cannot be found leaves the recursive resolver."""
        labels = self._domain.split(".")
        for start in range(len(labels) - 1):
            name = ".".join(labels[start:])
            found = await self._resolver.lookup(name, "NS")
            if isinstance(found, Unavailable):
                return
            if isinstance(found, Found) and found.texts:
                self.zone, self.hosts = name, tuple(sorted(found.texts))
                break
        addresses = await self._addresses()
        if addresses:
            settings = ResolverSettings(
                nameservers=tuple((address, self._port) for address in addresses), timeout_seconds=_TIMEOUT_SECONDS, rounds=1
            )
            self._asked = Resolver(settings, self._clock)

    async def _addresses(self) -> list[str]:
        found: list[str] = []
        for host in self.hosts[:_MOST_HOSTS]:
            for kind in ("A", "AAAA"):
                answer = await self._resolver.lookup(host, kind)
                if isinstance(answer, Found):
                    found += [text for text in answer.texts if self._guard.judge(text) is Verdict.ALLOWED]
        return sorted(found, key=lambda address: ":" in address)[:_MOST_ADDRESSES]  # IPv4 first: it works everywhere

    async def lookup(self, name: str, kind: str) -> Lookup:
        """Look a record up at the domain's own servers, else at the resolver's."""
        if self._asked is not None:
            answer = await self._asked.lookup(name, kind)
            if not isinstance(answer, Unavailable):
                return answer
        return await self._resolver.lookup(name, kind)


def fresh(settings: ResolverSettings) -> ResolverSettings:
    """Give the settings of a resolver that waits less, for somebody who looks on."""
    return replace(settings, timeout_seconds=_TIMEOUT_SECONDS, rounds=1)
