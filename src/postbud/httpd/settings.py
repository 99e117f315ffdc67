"""What the wiring decides for the sending API, and what it counts."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from postbud.model.refusal import Why

MIB = 1024 * 1024
ANSWERS_KEPT_SECONDS = 86400.0  # how long an Idempotency-Key is remembered


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """One worker's part of the API. Counts are of this worker, times in seconds."""

    address: str  # "host:port", "[::1]:port"
    hostname: str
    worker: int = 0
    workers: int = 1
    tls: bool = False
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose X-Forwarded-For is believed
    size_limit_octets: int = 50 * MIB  # of the content, composed or raw
    connections: int = 2_500
    connections_per_address: int = 200  # an IPv6 /64 counts as one address
    header_octets: int = 32 * 1024
    header_seconds: float = 15.0  # from the first octet of a request, or the connection, to the end of its header section
    body_pause_seconds: float = 30.0  # the longest that a body may pause
    body_octets_per_second: int = 100  # the least, after a body's first `body_pause_seconds`
    keep_alive_seconds: int = 60
    bodies_octets: int = 128 * MIB  # JSON being received, all requests together
    key_failures_per_address: int = 30  # within `key_window_seconds`
    key_window_seconds: float = 600.0

    @property
    def name(self) -> str:
        """How logs and trace fields name the listener."""
        return f"api@{self.address}"

    @property
    def json_limit_octets(self) -> int:
        """Largest JSON body: the content in base64, and room for the rest."""
        return self.size_limit_octets // 3 * 4 + MIB


@dataclass(slots=True)
class ApiCounters:
    """What the API of one worker did since it started; `*_open` are gauges."""

    connections_open: int = 0
    connections_refused: int = 0
    requests: int = 0
    key_failed: int = 0
    key_throttled: int = 0
    timeouts: int = 0
    faults: int = 0  # exceptions that no one expected
    replayed: int = 0  # answers given again for a known Idempotency-Key
    forwarded: int = 0  # requests handed to the worker that owns them
    messages_accepted: int = 0
    recipients_accepted: int = 0
    octets_accepted: int = 0
    refusals: Counter[Why] = field(default_factory=Counter)
