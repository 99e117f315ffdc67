"""A listener: sockets, accepting, and who may come in at all.

Placeholder of the public shape; the rest follows.
"""

from collections.abc import Callable
from datetime import datetime

from postbud.smtpd.gate import Gate
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import ListenerSettings
from postbud.smtpd.tls import ServerTls


class SmtpListener:
    """Listens on one address and starts a session for each connection."""

    def __init__(
        self, settings: ListenerSettings, gate: Gate, tls: ServerTls | None, sessions: Sessions, clock: Callable[[], datetime]
    ) -> None:
        """Take what it needs; `clock` gives aware UTC time. Limits, counters, log and tasks are those of `sessions`."""
        self.settings = settings
        self.gate = gate
        self.tls = tls
        self.sessions = sessions
        self.clock = clock
        self.port = 0

    async def start(self) -> None:
        """Bind and begin to accept. Raises `OSError` when the address cannot be had."""

    def stop(self) -> None:
        """Accept no more. Sessions go on. Idempotent."""
