"""The way out, as the wiring builds it and delivery uses it: `route` says where, `connect` opens a session there.

Owns the DNS cache, the sources and the TLS contexts. Knows no queue: lanes and pools of connections are delivery's.
"""

import random
from collections import OrderedDict
from collections.abc import Callable

from postbud.egress.client import Connection
from postbud.egress.dial import Dialer
from postbud.egress.resolve import Exchangers, find_exchangers
from postbud.egress.routing import Hop, Routing, match_route, parse_next_hop
from postbud.egress.session import Session
from postbud.egress.settings import EgressSettings, RouteSettings, TlsMode
from postbud.egress.source import Source, Sources
from postbud.egress.tls import Contexts
from postbud.model.outcome import Bounced, Deferred, Outcome, Scope
from postbud.net.dns import Resolver
from postbud.net.guard import Guard
from postbud.shaping.limits import Action, Origin

_REMEMBER_SECONDS = 60.0
_REMEMBER_DOMAINS = 10_000


class Egress:
    """Everything that delivery needs of the outside."""

    def __init__(self, settings: EgressSettings, *, dice: random.Random, clock: Callable[[], float]) -> None:
        """Take the settings, dice (shuffles equal MX, chooses sources) and a monotonic clock.

        Raises:
            ValueError: A next hop is not host:port, or a network is none.
        """
        self._settings = settings
        self._dice = dice
        self._clock = clock
        self._sources = Sources(settings.sources, settings.hostname, dice)
        self._static = {route: parse_next_hop(route.next_hop, settings.port) for route in settings.routes}
        self._found: OrderedDict[str, tuple[float, Exchangers]] = OrderedDict()
        self.resolver = Resolver(settings.dns, clock)
        own = (*settings.own_addresses, *(one.address for one in settings.sources if one.address))
        guard = Guard(own, settings.allowed_networks)
        self._dialer = Dialer(settings, self.resolver, guard, Contexts(settings.ca_file), clock)

    def known_route(self, domain: str, pool: str | None, require_tls: bool = False) -> Routing | None:  # noqa: ARG002, FBT001, FBT002 (the shape of `route`)
        """Give the routing when no look-up is needed."""
        route = match_route(self._settings.routes, domain)
        kept = self._found.get(domain)
        if route is None and (kept is None or kept[0] <= self._clock()):
            return None
        source = self._sources.choose(pool)
        if source is None:
            return None
        if route is not None:
            return self._static_routing(route, source)
        assert kept is not None
        return self._mx_routing(kept[1], source)

    async def route(self, domain: str, pool: str | None, *, require_tls: bool = False) -> Routing | Deferred | Bounced:
        """Find the way to a domain (A-labels): static routes first, then MX.

        `require_tls` changes nothing here: a connection sees to REQUIRETLS for each message, so that all share lanes.
        """
        known = self.known_route(domain, pool, require_tls)
        if known is not None:
            return known
        source = self._sources.choose(pool)
        if source is None:
            return Deferred(f"no egress source here is in pool {pool}", "4.3.5", Scope.SITE)
        found = await find_exchangers(self.resolver, domain, self._settings.hostname, self._dice)
        if not isinstance(found, Exchangers):
            return found
        self._found.pop(domain, None)
        self._found[domain] = (self._clock() + _REMEMBER_SECONDS, found)
        if len(self._found) > _REMEMBER_DOMAINS:
            self._found.popitem(last=False)
        return self._mx_routing(found, source)

    async def connect(self, routing: Routing) -> Connection | Deferred | Bounced:
        """Open a session with the first hop that is ready for mail."""
        opened = await self._dialer.open(routing)
        if not isinstance(opened, Session):
            return opened
        return Connection(opened, routing, self._dialer, self._settings.timers)

    def _static_routing(self, route: RouteSettings, source: Source) -> Routing:
        hop = self._static[route]
        site = f"{hop.host}:{hop.port}"
        limits = self._settings.shaping.limits(site, route.limits or self._settings.route_limits)
        return Routing(site, (hop,), source, route.tls, limits, route)

    def _mx_routing(self, found: Exchangers, source: Source) -> Routing:
        hops = tuple(Hop(host, self._settings.port) for host in found.hosts)
        limits = self._settings.shaping.limits(found.site, self._settings.limits)
        return Routing(found.site, hops, source, TlsMode.OPPORTUNISTIC, limits)

    def explain(self, routing: Routing) -> list[Origin]:
        """Tell where each limit of a way comes from."""
        if routing.route is not None:
            return self._settings.shaping.explain(routing.site, routing.route.limits or self._settings.route_limits)
        return self._settings.shaping.explain(routing.site, self._settings.limits)

    def asks(self, site: str, outcome: Outcome) -> Action:
        """Tell what an outcome asks of the lane it came from."""
        return self._settings.shaping.read(site, outcome)
