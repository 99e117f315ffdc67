"""The one resolver: asks recursive name servers, keeps answers for a bounded time, and says which kind of no it got.

Knows no mail. Invariant: `Missing` only upon an answer that says so (NXDOMAIN, or NOERROR without data); whatever else goes
wrong, on every server, is `Unavailable`, so that nobody bounces mail for a resolver's trouble (rows 26, 27, 33).
RFC 1035, 2308 (negative answers), 6891 (EDNS0), 7766 (TCP after truncation).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

MAX_RECORDS = 1000  # of one answer; more is an attack
_UDP_OCTETS = 1232  # DNS Flag Day 2020: fits every path unfragmented


@dataclass(frozen=True, slots=True)
class Mx:
    """One MX record. `host` is lower case without the final dot; "" is the root (null MX)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Found:
    """Records: `Mx` for MX, addresses as text for A and AAAA, joined strings for TXT, host names for others."""

    records: tuple[Mx | str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The records that are text."""
        return tuple(record for record in self.records if isinstance(record, str))

    @property
    def exchangers(self) -> tuple[Mx, ...]:
        """The records that are MX."""
        return tuple(record for record in self.records if isinstance(record, Mx))


class Absence(Enum):
    """What exactly is not there."""

    NXDOMAIN = "nxdomain"  # no such name at all
    NODATA = "nodata"  # the name is there, records of this type are not


@dataclass(frozen=True, slots=True)
class Missing:
    """An authoritative no."""

    absence: Absence


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No server gave an answer that can be used; try later."""

    why: str


Lookup = Found | Missing | Unavailable


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """Name servers as (address, port), asked in turn; and how long to wait and to remember. Without servers: the system's."""

    nameservers: tuple[tuple[str, int], ...] = ()
    timeout_seconds: float = 4.0
    rounds: int = 2
    cache_entries: int = 20_000
    min_ttl_seconds: float = 10.0  # TTL 0 must not make a storm (K6)
    max_ttl_seconds: float = 3600.0
    negative_ttl_seconds: float = 300.0
    failure_ttl_seconds: float = 5.0


class _TroubleError(Exception):
    """One server's answer cannot be used."""


class Resolver:
    """Asks, remembers, and lets equal questions share one query."""

    def __init__(self, settings: ResolverSettings, clock: Callable[[], float]) -> None:
        """Take the settings and a monotonic clock."""
        self._settings = settings
        self._nameservers = settings.nameservers or system_nameservers()
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], tuple[float, Lookup]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Future[Lookup]] = {}
        self.queries = 0

    def known(self, name: str, kind: str) -> Lookup | None:
        """Give what is remembered and not too old."""
        kept = self._cache.get((name, kind))
        return kept[1] if kept is not None and kept[0] > self._clock() else None

    async def lookup(self, name: str, kind: str) -> Lookup:
        """Look records of a type ("MX", "A", "AAAA", "TXT") up. Never raises for trouble of names or servers."""
        key = (name, kind)
        while True:
            known = self.known(name, kind)
            if known is not None:
                return known
            asking = self._asking.get(key)
            if asking is None:
                return await self._ask_shared(key)
            await asyncio.wait([asking])
            if not asking.cancelled():
                return asking.result()

    async def _ask_shared(self, key: tuple[str, str]) -> Lookup:
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            result, ttl = await self._ask(*key)
            self._remember(key, result, ttl)
            future.set_result(result)
            return result
        finally:
            del self._asking[key]
            future.cancel()  # who waits asks anew; nothing once there is a result

    def _remember(self, key: tuple[str, str], result: Lookup, ttl: float) -> None:
        settings = self._settings
        match result:
            case Found():
                ttl = min(max(ttl, settings.min_ttl_seconds), settings.max_ttl_seconds)
            case Missing():
                ttl = min(max(ttl, settings.min_ttl_seconds), settings.negative_ttl_seconds)
            case Unavailable():
                ttl = settings.failure_ttl_seconds
        self._cache.pop(key, None)
        self._cache[key] = (self._clock() + ttl, result)
        if len(self._cache) > settings.cache_entries:
            self._cache.popitem(last=False)

    async def _ask(self, name: str, kind: str) -> tuple[Lookup, float]:
        try:
            asked = dns.name.from_text(name)
        except (dns.exception.DNSException, ValueError):
            return Missing(Absence.NXDOMAIN), self._settings.negative_ttl_seconds
        rdtype = dns.rdatatype.from_text(kind)
        result, ttl, alias = await self._ask_servers(asked, rdtype)
        if alias is not None:  # the server left the alias to us: follow it once
            result, ttl, alias = await self._ask_servers(alias, rdtype)
            if alias is not None:
                return Unavailable("a chain of aliases has no end"), 0.0
        return result, ttl

    async def _ask_servers(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> tuple[Lookup, float, dns.name.Name | None]:
        why = "no name server is configured"
        for _ in range(self._settings.rounds):
            for server in self._nameservers:
                try:
                    return _read(await self._ask_one(name, rdtype, server), name, rdtype)
                except dns.exception.Timeout:
                    why = "name servers do not answer"
                except (_TroubleError, dns.exception.DNSException, OSError, EOFError, ValueError) as error:
                    why = f"name servers fail: {str(error) or type(error).__name__}"
        return Unavailable(why), 0.0, None

    async def _ask_one(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, server: tuple[str, int]
    ) -> dns.message.Message:
        self.queries += 1
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=_UDP_OCTETS)
        answer, _ = await dns.asyncquery.udp_with_fallback(
            query,
            server[0],
            timeout=self._settings.timeout_seconds,
            port=server[1],
            ignore_unexpected=True,
            ignore_errors=True,  # a spoofed id is passed over; the true answer may still come (row 33)
        )
        return answer


def _read(
    answer: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> tuple[Lookup, float, dns.name.Name | None]:
    """Give the result, its TTL, and the alias that is left to follow."""
    rcode = answer.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _TroubleError(dns.rcode.to_text(rcode))
    if not isinstance(answer, dns.message.QueryMessage):
        raise _TroubleError("not an answer to a query")
    chain = answer.resolve_chaining()  # bounded; a loop raises
    ttl = float(chain.minimum_ttl)
    if rcode == dns.rcode.NXDOMAIN:
        return Missing(Absence.NXDOMAIN), ttl, None
    if chain.answer is None:
        alias = chain.canonical_name if chain.canonical_name != name else None
        return Missing(Absence.NODATA), ttl, alias
    if len(chain.answer) > MAX_RECORDS:
        raise _TroubleError(f"more than {MAX_RECORDS} records")
    return Found(tuple(_value(rdata, rdtype) for rdata in chain.answer)), ttl, None


def _value(rdata: object, rdtype: dns.rdatatype.RdataType) -> Mx | str:
    if rdtype == dns.rdatatype.MX:
        return Mx(rdata.preference, host_text(rdata.exchange))  # type: ignore[attr-defined]  # dnspython's rdata classes are made at run time
    if rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return str(rdata.address)  # type: ignore[attr-defined]  # as above
    if rdtype == dns.rdatatype.TXT:
        return b"".join(rdata.strings).decode("utf-8", "replace")  # type: ignore[attr-defined]  # as above
    return host_text(rdata.target)  # type: ignore[attr-defined]  # as above


def host_text(name: dns.name.Name) -> str:
    """Give a name as text: lower case, without the final dot, odd octets escaped."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def system_nameservers() -> Sequence[tuple[str, int]]:
    """Give the name servers of this machine; none when it has no configuration."""
    try:
        found = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return ()
    return [(str(server), found.port) for server in found.nameservers]
