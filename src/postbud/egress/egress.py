"""The way out, as the wiring builds it and delivery uses it."""

import random
from collections.abc import Callable

from postbud.egress.client import Connection
from postbud.egress.routing import Routing
from postbud.egress.settings import EgressSettings
from postbud.model.outcome import Bounced, Deferred


class Egress:
    """Owns DNS cache, sources and TLS contexts."""

    def __init__(self, settings: EgressSettings, *, dice: random.Random, clock: Callable[[], float]) -> None:
        """Take the settings, dice (shuffles equal MX, chooses sources) and a monotonic clock."""
        raise NotImplementedError

    def known_route(self, domain: str, pool: str | None, require_tls: bool = False) -> Routing | None:  # noqa: FBT001, FBT002
        """Give the routing when no look-up is needed."""
        raise NotImplementedError

    async def route(self, domain: str, pool: str | None, *, require_tls: bool = False) -> Routing | Deferred | Bounced:
        """Find the way to a domain: static routes first, then MX."""
        raise NotImplementedError

    async def connect(self, routing: Routing) -> Connection | Deferred | Bounced:
        """Open a session with the first hop that is ready for mail."""
        raise NotImplementedError
