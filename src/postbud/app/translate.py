"""From the settings file's tables to what each consumer declares beside itself. Pure."""

from importlib import resources
from ipaddress import IPv4Network, IPv6Network, ip_network

from postbud.app.config import ListenerTable, RouteTable, Settings
from postbud.delivery.scheduler import SchedulerSettings
from postbud.egress.settings import EgressSettings, RouteSettings, SourceSettings, Timers
from postbud.egress.settings import TlsMode as EgressTls
from postbud.model.settings import SettingsError
from postbud.net.dns import ResolverSettings
from postbud.shaping.backoff import RetrySchedule
from postbud.shaping.limits import Shaping, ShapingError, SiteLimits
from postbud.shaping.pace import PaceSettings
from postbud.smtpd.settings import Limits, ListenerSettings, Role, TlsMode
from postbud.spool.values import SpoolSettings

_DNS_PORT = 53


def spool_settings(settings: Settings) -> SpoolSettings:
    """Settings of a worker's spool."""
    table = settings.config.spool
    return SpoolSettings(reserve_octets=table.reserve_octets, reserve_inodes=table.reserve_inodes, event_days=table.event_days)


def retry_schedule(settings: Settings) -> RetrySchedule:
    """When deferred deliveries are due again."""
    relay = settings.config.relay
    return RetrySchedule(
        first_seconds=relay.retry_first_seconds,
        max_seconds=max(relay.retry_first_seconds, relay.retry_max_seconds),
        expire_after_seconds=relay.expire_after_seconds,
        delay_notice_after_seconds=relay.delay_notice_after_seconds,
    )


def limits(settings: Settings) -> Limits:
    """What one worker gives to clients; totals are shared out among the workers."""
    relay = settings.config.relay
    return Limits(
        connections=max(1, relay.connections // settings.workers),
        connections_per_address=max(1, -(-relay.connections_per_address // settings.workers)),
        content_octets_per_second=relay.min_content_octets_per_second,
    )


def listener_settings(settings: Settings, table: ListenerTable) -> ListenerSettings:
    """One listener."""
    return ListenerSettings(
        address=table.address,
        hostname=settings.hostname,
        role=Role(table.role),
        tls=TlsMode(table.tls),
        auth_without_tls=table.auth_without_tls,
        ip_credentials=table.ip_credentials,
        proxy_from=networks(table.proxy_from, f"listener {table.address}: proxy_from"),
    )


def egress_settings(settings: Settings) -> EgressSettings:
    """How mail leaves."""
    relay = settings.config.relay
    scale = relay.timeout_scale
    base = Timers()
    timers = Timers(**{name: getattr(base, name) * scale for name in base.__dataclass_fields__})
    return EgressSettings(
        hostname=settings.hostname,
        routes=tuple(_route(settings, table) for table in relay.route),
        sources=tuple(SourceSettings(one.id, one.address, one.helo, one.pool) for one in settings.config.source),
        timers=timers,
        limits=SiteLimits(connections=relay.connections_per_site, messages_per_connection=relay.messages_per_connection),
        shaping=shaping(settings),
        dns=ResolverSettings(nameservers=nameservers(settings)),
        allowed_networks=networks(relay.allow_private_networks, "relay.allow_private_networks"),
        port=relay.smtp_port,
    )


def shaping(settings: Settings) -> Shaping:
    """Read the shipped rules for sites, and the operator's own above them."""
    shipped = resources.files("postbud.shaping").joinpath("shaping.toml").read_text(encoding="utf-8")
    files = [("shipped", shipped)]
    own = settings.config.relay.shaping_file
    try:
        if own is not None:
            files.append((own, settings.path(own).read_text(encoding="utf-8")))
        return Shaping.from_toml(*files)
    except (OSError, UnicodeDecodeError, ShapingError) as error:
        raise SettingsError(f"relay.shaping_file: {error}") from error


def scheduler_settings(settings: Settings) -> SchedulerSettings:
    """How much is in memory, and how long a site is left alone: never longer than its mail would wait anyhow."""
    relay = settings.config.relay
    usual = PaceSettings()
    return SchedulerSettings(
        active_limit=relay.active_deliveries,
        delay_notice_after_seconds=relay.delay_notice_after_seconds,
        pace=PaceSettings(
            pause_seconds=min(usual.pause_seconds, relay.retry_first_seconds),
            pause_max_seconds=min(usual.pause_max_seconds, relay.retry_max_seconds),
            dead_seconds=min(usual.dead_seconds, relay.retry_first_seconds),
            dead_max_seconds=min(usual.dead_max_seconds, relay.retry_max_seconds),
            account_seconds=min(usual.account_seconds, relay.retry_max_seconds),
        ),
    )


def _route(settings: Settings, table: RouteTable) -> RouteSettings:
    return RouteSettings(
        match=table.match,
        next_hop=table.next_hop,
        tls=EgressTls(table.tls),
        username=table.username,
        password_file=settings.path(table.password_file) if table.password_file else None,
        verify=table.verify,
        ca_file=settings.path(table.ca_file) if table.ca_file else None,
        trusted=table.trusted,
    )


def networks(texts: list[str], what: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read networks; `what` names the setting.

    Raises:
        SettingsError: One of them is none.
    """
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise SettingsError(f"{what}: {error}") from error


def nameservers(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Give the name servers to ask, as (address, port); none: the system's.

    Raises:
        SettingsError: One of them is no address.
    """
    return tuple(_nameserver(text) for text in settings.config.dns.nameservers)


def _nameserver(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    try:
        return host.strip("[]"), int(port) if port else _DNS_PORT
    except ValueError as error:
        raise SettingsError(f"dns.nameservers: {text!r} is not address:port") from error
