"""What the wiring decides for the SMTP server: `ListenerSettings` per listener, `Limits` per worker, and the logger's shape."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol


class TlsMode(Enum):
    """How a listener comes to TLS."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


class Role(Enum):
    """What a listener is for."""

    SUBMISSION = "submission"
    INBOUND = "inbound"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener."""

    address: str  # "host:port", "[::1]:port"; port 0 lets the system choose
    hostname: str  # who we say we are; a fully qualified domain
    role: Role = Role.SUBMISSION
    tls: TlsMode = TlsMode.STARTTLS
    auth_without_tls: bool = False
    ip_credentials: bool = False
    proxy_from: tuple[IPv4Network | IPv6Network, ...] = ()  # peers that must begin with a PROXY header; nobody else may
    banner_delay_seconds: float | None = None  # shows who talks before the greeting; None: 0.3 for inbound, else none

    @property
    def greeting_seconds(self) -> float:
        """How long to wait before the greeting."""
        if self.banner_delay_seconds is not None:
            return self.banner_delay_seconds
        return 0.3 if self.role is Role.INBOUND else 0.0

    @property
    def name(self) -> str:
        """How logs and trace fields name it."""
        return f"{self.role.value}@{self.address}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker gives to clients. Seconds and counts; the precedents are in the comments."""

    connections: int = 5_000
    connections_per_address: int = 200  # an IPv6 /64 counts as one address
    command_seconds: float = 300.0  # RFC 5321 s4.5.3.2.7
    handshake_seconds: float = 15.0
    proxy_header_seconds: float = 5.0
    content_seconds: float = 3_600.0  # one whole content
    content_octets_per_second: int = 100  # measured over windows of `content_window_seconds`
    content_window_seconds: float = 30.0
    linger_seconds: float = 2.0  # after our last reply, so that it is not lost to a reset
    auth_failures_per_session: int = 5
    auth_failures_per_address: int = 30  # within `auth_window_seconds`
    auth_failures_per_address_and_name: int = 10
    auth_window_seconds: float = 600.0
    auth_delay_seconds: float = 0.25  # doubles with each failure of the address
    auth_delay_max_seconds: float = 4.0
    auth_waiting: int = 256  # failures waiting for their delayed reply; more are told to come again


class Log(Protocol):
    """A structured logger (structlog's shape): an event and fields."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log for developers."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log what happened."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what an operator should see."""

    def exception(self, event: str, **fields: Any) -> Any:
        """Log a bug with its traceback."""
