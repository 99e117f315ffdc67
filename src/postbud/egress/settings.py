"""What the wiring decides for the client side: timers, limits, routes, sources, DNS, and who may be dialled."""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from postbud.net.dns import ResolverSettings
from postbud.shaping.limits import Shaping, SiteLimits


class TlsMode(Enum):
    """How much TLS a next hop must have."""

    NONE = "none"  # never asked for
    OPPORTUNISTIC = "opportunistic"  # if offered, whatever the certificate; in clear when it fails
    REQUIRED = "required"  # STARTTLS must be offered and succeed; certificate checked unless the route says verify = false


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds that a peer has, RFC 5321 s4.5.3.2 (none shorter). Each is a deadline for a whole reply, not for an octet."""

    connect: float = 30.0
    connect_v6: float = 6.0  # while IPv4 addresses of the next hop remain
    banner: float = 300.0
    command: float = 300.0  # EHLO, MAIL, RCPT, STARTTLS, AUTH
    data: float = 120.0
    block: float = 180.0  # until what was written is taken by the peer's window
    content: float = 3600.0  # the whole content
    end: float = 600.0
    handshake: float = 60.0
    quit: float = 2.0  # we have what we want; QUIT's reply is a courtesy
    attempt: float = 600.0  # no further address is begun after this


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """A static route: the operator's own decision, so the guard does not apply to it."""

    match: str  # a domain, `*.domain` (its subdomains) or `*`
    next_hop: str  # "host", "host:port", "[v6]", "[v6]:port"
    tls: TlsMode = TlsMode.OPPORTUNISTIC
    username: str | None = None
    password_file: Path | None = None
    verify: bool = True  # tls = "required": check the certificate
    ca_file: Path | None = None  # instead of the system's authorities
    trusted: bool = False  # the next hop is ours and keeps REQUIRETLS whatever it offers (RFC 8689 s4.2.1)
    limits: SiteLimits | None = None


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """An egress source: local addresses (none: the system's choice), HELO name, pool."""

    id: str
    address: str | None = None
    helo: str | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """Everything above, and who we are."""

    hostname: str
    routes: tuple[RouteSettings, ...] = ()
    sources: tuple[SourceSettings, ...] = ()
    timers: Timers = field(default_factory=Timers)
    limits: SiteLimits = field(default_factory=SiteLimits)
    route_limits: SiteLimits = field(default_factory=lambda: SiteLimits(connections=40, messages_per_connection=1000))
    shaping: Shaping = field(default_factory=Shaping.from_toml)
    dns: ResolverSettings = field(default_factory=ResolverSettings)
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()  # may be dialled although private
    own_addresses: tuple[str, ...] = ()  # never dialled: the public addresses of our own listeners
    ca_file: Path | None = None
    port: int = 25
