"""Where mail for a domain goes: hops in order, and how to speak to them. Static routes are matched here.

Pure decisions; MX look-ups are in `resolve`.
"""

from dataclasses import dataclass

from postbud.egress.settings import RouteSettings, TlsMode
from postbud.egress.source import Source
from postbud.shaping.limits import SiteLimits


@dataclass(frozen=True, slots=True)
class Hop:
    """One host to try. Its addresses are looked up when it is dialled."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Routing:
    """The way to a site. Two domains with one `site` have the same hops, so their recipients may share a transaction."""

    site: str
    hops: tuple[Hop, ...]
    source: Source
    tls: TlsMode
    limits: SiteLimits
    route: RouteSettings | None = None  # the static route, if it is one


def match_route(routes: tuple[RouteSettings, ...], domain: str) -> RouteSettings | None:
    """Give the most specific static route for a domain: itself, then the longest `*.suffix`, then `*`."""
    best: RouteSettings | None = None
    for route in routes:
        pattern = route.match.lower()
        hit = pattern in ("*", domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))
        if hit and (best is None or _weight(pattern, domain) > _weight(best.match.lower(), domain)):
            best = route
    return best


def _weight(pattern: str, domain: str) -> int:
    return len(domain) + 1 if pattern == domain else len(pattern)


def parse_next_hop(text: str, default_port: int) -> Hop:
    """Read "host", "host:port", "[v6]" or "[v6]:port".

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f"next hop {text!r} is not [address]:port")
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
    if not host or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(f"next hop {text!r} is not host:port")
    return Hop(host, int(port) if colon else default_port)
