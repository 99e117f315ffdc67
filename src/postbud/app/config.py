"""`postbud.toml`: process settings, one frozen struct a table, every key documented in `docs/settings.md`.

Environment overrides: `POSTBUD__RELAY__HOSTNAME=mx.example` sets `relay.hostname`; the value is read as TOML, else as text.
Relative paths are relative to the settings file's folder.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from postbud.model.mailbox import MailboxError, parse_domain
from postbud.model.settings import SettingsError, convert

_ENV_PREFIX = "POSTBUD__"
MIB = 1024 * 1024
MAX_WORKERS = 64  # as many as the shared limits have places for (egress/slots.py)


class ListenerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[relay.listener]]`."""

    address: str
    role: str = "submission"
    tls: str = "starttls"
    auth_without_tls: bool = False
    ip_credentials: bool = False
    proxy_from: list[str] = []


class RouteTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[relay.route]]`."""

    match: str
    next_hop: str
    tls: str = "opportunistic"
    verify: bool = True
    ca_file: str | None = None
    username: str | None = None
    password_file: str | None = None
    trusted: bool = False  # the next hop keeps REQUIRETLS whatever it offers


class RelayTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[relay]`."""

    hostname: str = ""
    workers: int = 0  # 0: as many as cores
    bounce_domain: str | None = None
    token_key_file: str | None = None
    certificate_file: str | None = None
    certificate_key_file: str | None = None
    listener: list[ListenerTable] = []
    route: list[RouteTable] = []
    size_limit_octets: int = 50 * MIB
    recipients_limit: int = 1000
    connections: int = 5000
    connections_per_address: int = 200
    retry_first_seconds: float = 300.0
    retry_max_seconds: float = 14400.0
    expire_after_seconds: float = 345600.0
    delay_notice_after_seconds: float = 14400.0
    drain_seconds: float = 30.0
    active_deliveries: int = 20000
    held_octets_per_account: int = 1024 * MIB
    connections_per_site: int = 20
    messages_per_connection: int = 100
    shaping_file: str | None = None
    allow_private_networks: list[str] = []
    smtp_port: int = 25
    timeout_scale: float = 1.0  # scales the RFC 5321 timers of outgoing sessions; for tests
    min_content_octets_per_second: int = 100
    console: str = ""  # "unix:PATH" or "https://…": where `postbud relay` without a directory file gets its directory
    console_token_file: str | None = None  # this node's token, for https
    console_ca_file: str | None = None  # authorities to trust for it instead of the system's
    node: str = ""  # this machine's name at the console; empty: hostname


class SourceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[source]]`: an egress source."""

    id: str
    address: str
    helo: str | None = None
    pool: str | None = None


class DnsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dns]`."""

    nameservers: list[str] = []  # "address" or "address:port"; empty: the system's
    networks: list[str] = []  # where customers' own name servers may be, beside the public internet


class DoctorTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[doctor]`: whom `postbud doctor` asks, and how often it looks by itself (0: never)."""

    every_hours: float = 6.0
    probes: list[str] = msgspec.field(
        default_factory=lambda: ["gmail-smtp-in.l.google.com:25", "mx-eu.mail.am0.yahoodns.net:25"]
    )
    blocklists: list[str] = msgspec.field(
        default_factory=lambda: ["zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org"]
    )


class SpoolTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[spool]`."""

    reserve_octets: int = 256 * MIB
    reserve_inodes: int = 1000
    event_days: float = 7.0


class TelemetryTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[telemetry]`."""

    address: str = "127.0.0.1:9025"
    log_level: str = "info"
    log_json: bool = True
    event_file_octets: int = 64 * MIB
    event_files: int = 8


class ApiTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[api]`: the sending API, served by every worker."""

    address: str = ""  # host:port; empty: none
    tls: bool = False  # with the relay's certificate; else put a proxy with TLS before it
    trusted_proxies: list[str] = []  # networks whose X-Forwarded-For is believed
    connections: int = 5000
    connections_per_address: int = 200


class ConsoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[console]`: the control plane of `postbud serve` and `postbud console`."""

    address: str = "127.0.0.1:8000"
    public_url: str = ""  # how browsers reach it; empty: http://<address>
    database: str = ""  # "postgresql://…"; empty: SQLite, console.db in the data folder
    threads: int = 8  # pages answered at once
    sign_up: bool = False
    trusted_proxies: list[str] = []  # networks whose X-Forwarded-* fields are believed
    link_address: str = ""  # where relays of other machines reach the link; empty: the Unix socket alone
    link_certificate_file: str | None = None
    link_certificate_key_file: str | None = None
    submission_host: str = ""  # what customers type into their devices; empty: relay.hostname
    submission_port: int = 0  # 0: the first submission listener's with STARTTLS
    submission_tls_port: int = 0  # 0: the first submission listener's with implicit TLS
    api_url: str = ""  # how programs reach the sending API; empty: http://<api.address>
    backups: int = 5  # how many backups that upgrades made are kept
    hook_networks: list[str] = []  # networks beside the public internet that webhooks may be posted to
    hook_ports: list[int] = msgspec.field(default_factory=lambda: [80, 443])


class DemoTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[demo]`: the catcher of `postbud serve --demo`; loopback only."""

    smtp_address: str = "127.0.0.1:2626"
    http_address: str = "127.0.0.1:2627"
    messages: int = 5000  # how many the catcher keeps


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    data_dir: str = "data"
    relay: RelayTable = msgspec.field(default_factory=RelayTable)
    source: list[SourceTable] = []
    dns: DnsTable = msgspec.field(default_factory=DnsTable)
    doctor: DoctorTable = msgspec.field(default_factory=DoctorTable)
    spool: SpoolTable = msgspec.field(default_factory=SpoolTable)
    telemetry: TelemetryTable = msgspec.field(default_factory=TelemetryTable)
    console: ConsoleTable = msgspec.field(default_factory=ConsoleTable)
    demo: DemoTable = msgspec.field(default_factory=DemoTable)
    api: ApiTable = msgspec.field(default_factory=ApiTable)


class Settings(msgspec.Struct, frozen=True):
    """A configuration with its place, so that relative paths mean something."""

    config: Config
    folder: Path
    file: Path | None = None  # where they were read from, if from a file

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / self.config.data_dir

    def path(self, name: str) -> Path:
        """Give a file named in the configuration."""
        return self.folder / name

    @property
    def hostname(self) -> str:
        """Our name in greetings, trace fields and reports."""
        return self.config.relay.hostname

    @property
    def workers(self) -> int:
        """How many relay workers run."""
        return self.config.relay.workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def load_settings(path: Path | None, environment: Mapping[str, str], data: str | None = None) -> Settings:
    """Read the settings: the named file, else `postbud.toml` in the named data folder, else `./postbud.toml`, else none.

    Raises:
        SettingsError: A file that is missing or says what cannot be.
    """
    tree: dict[str, Any] = {}
    beside = Path(data) / "postbud.toml" if data is not None else None
    chosen = path if path is not None else beside if beside is not None and beside.exists() else Path("postbud.toml")
    if path is not None or chosen.exists():
        try:
            tree = msgspec.toml.decode(chosen.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{chosen}: {error}") from error
    _override(tree, environment)
    if data is not None:
        tree["data_dir"] = str(Path(data).absolute())
    config = convert(tree, Config, chosen.name)
    if not config.relay.hostname:
        config = msgspec.structs.replace(config, relay=msgspec.structs.replace(config.relay, hostname=_own_name()))
    _check(config, chosen.name)
    return Settings(config, chosen.absolute().parent, chosen.absolute() if chosen.exists() else None)


def _override(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in environment.items():
        if not name.startswith(_ENV_PREFIX):
            continue
        place = tree
        *tables, key = name[len(_ENV_PREFIX) :].lower().split("__")
        for table in tables:
            inner = place.setdefault(table, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{name}: {table} is no table")
            place = inner
        try:
            place[key] = msgspec.toml.decode(f"value = {text}")["value"]
        except msgspec.DecodeError:
            place[key] = text


def _own_name() -> str:
    name = socket.getfqdn().lower()
    return name if "." in name else f"{name}.localdomain"


def _check(config: Config, name: str) -> None:
    relay = config.relay
    for domain, what in ((relay.hostname, "relay.hostname"), (relay.bounce_domain, "relay.bounce_domain")):
        if domain is not None:
            try:
                parse_domain(domain)
            except MailboxError as error:
                raise SettingsError(f"{name}: {what} {domain!r}: {error.why}") from error
    for listener in relay.listener:
        if listener.role not in ("submission", "inbound"):
            raise SettingsError(f"{name}: listener {listener.address}: role is submission or inbound")
        if listener.tls not in ("starttls", "implicit", "none"):
            raise SettingsError(f"{name}: listener {listener.address}: tls is starttls, implicit or none")
    for route in relay.route:
        if route.tls not in ("none", "opportunistic", "required"):
            raise SettingsError(f"{name}: route {route.match}: tls is none, opportunistic or required")
        if (route.username is None) != (route.password_file is None):
            raise SettingsError(f"{name}: route {route.match}: username and password_file go together")
    _check_numbers(relay, name)
    _check_console(config, name)


def _check_console(config: Config, name: str) -> None:
    relay, console = config.relay, config.console
    if relay.console and not relay.console.startswith(("unix:", "https://")):
        raise SettingsError(f"{name}: relay.console is unix:PATH or https://HOST:PORT")
    if relay.console.startswith("https://") and relay.console_token_file is None:
        raise SettingsError(f"{name}: relay.console over https needs relay.console_token_file (`postbud node add`)")
    if console.database and not console.database.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"{name}: console.database is empty (SQLite in the data folder) or postgresql://…")
    if (console.link_certificate_file is None) != (console.link_certificate_key_file is None):
        raise SettingsError(f"{name}: console.link_certificate_file and link_certificate_key_file go together")
    if console.public_url and not console.public_url.startswith(("http://", "https://")):
        raise SettingsError(f"{name}: console.public_url begins with http:// or https://")
    if console.threads <= 0 or console.backups <= 0:
        raise SettingsError(f"{name}: console.threads and console.backups are more than 0")
    addresses = {"console.address": console.address, "telemetry.address": config.telemetry.address}
    addresses |= {"demo.smtp_address": config.demo.smtp_address, "demo.http_address": config.demo.http_address}
    addresses |= {"console.link_address": console.link_address} if console.link_address else {}
    addresses |= {"api.address": config.api.address} if config.api.address else {}
    for key, address in addresses.items():
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise SettingsError(f"{name}: {key} {address!r} is host:port")


def _check_numbers(relay: RelayTable, name: str) -> None:
    positive = {
        "relay.size_limit_octets": relay.size_limit_octets,
        "relay.recipients_limit": relay.recipients_limit,
        "relay.retry_first_seconds": relay.retry_first_seconds,
        "relay.expire_after_seconds": relay.expire_after_seconds,
        "relay.active_deliveries": relay.active_deliveries,
        "relay.held_octets_per_account": relay.held_octets_per_account,
        "relay.connections_per_site": relay.connections_per_site,
        "relay.messages_per_connection": relay.messages_per_connection,
        "relay.timeout_scale": relay.timeout_scale,
    }
    if not 0 <= relay.workers <= MAX_WORKERS:
        raise SettingsError(f"{name}: relay.workers is 0 (as many as cores) to {MAX_WORKERS}")
    for key, value in positive.items():
        if value <= 0:
            raise SettingsError(f"{name}: {key} is more than 0")


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Give every key with its value, for `postbud config explain`."""
    if isinstance(value, msgspec.Struct):
        rows = []
        for field in msgspec.structs.fields(type(value)):
            rows.extend(flatten(getattr(value, field.name), f"{prefix}.{field.encode_name}" if prefix else field.encode_name))
        return rows
    if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        return [row for number, member in enumerate(value) for row in flatten(member, f"{prefix}[{number}]")]
    return [(prefix, value)]
