"""What the console is told of this machine: one struct, handed over by `app` in the environment as JSON.

Owns no setting of its own: each is made of `postbud.toml`. Does not know Django but for `current`.
"""

import os
from pathlib import Path

import msgspec

VARIABLE = "POSTBUD_CONSOLE"


class ConsoleSettings(msgspec.Struct, frozen=True):
    """Settings of the console's processes. `data` is the data folder; `database` empty is SQLite in it."""

    data: str = "data"
    database: str = ""
    address: str = "127.0.0.1:8000"
    public_url: str = "http://127.0.0.1:8000"
    demo: bool = False
    sign_up: bool = False
    hostname: str = "localhost.localdomain"
    bounce_domain: str = ""
    submission_host: str = "127.0.0.1"
    submission_port: int = 2525
    submission_tls_port: int = 4465
    api_url: str = "http://127.0.0.1:8025"
    link_address: str = ""
    trusted_proxies: list[str] = []
    link_socket: str = ""
    system_smtp: str = "127.0.0.1:2525"
    nameservers: list[str] = []  # "address:port"; empty: the system's
    dns_networks: list[str] = []  # where name servers of customers' domains may be, beside the public internet
    hook_networks: list[str] = []  # networks beside the public internet that webhooks may be posted to
    hook_ports: list[int] = msgspec.field(default_factory=lambda: [80, 443])

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.data)

    @property
    def socket(self) -> Path:
        """The link's Unix socket."""
        return Path(self.link_socket) if self.link_socket else self.folder / "run" / "link.sock"

    @property
    def secure(self) -> bool:
        """Whether browsers reach the pages by TLS."""
        return self.public_url.startswith("https://")


def from_environment() -> ConsoleSettings:
    """Read what `app` handed over; defaults when nothing was."""
    handed = os.environ.get(VARIABLE, "")
    return msgspec.json.decode(handed, type=ConsoleSettings) if handed else ConsoleSettings()


def current() -> ConsoleSettings:
    """Give the settings in force."""
    from django.conf import settings  # noqa: PLC0415  # `app` reads the struct before Django's settings exist

    found: ConsoleSettings = settings.CONSOLE
    return found
