"""The wiring: every part of one relay worker, built from the settings. Nothing here runs anything.

Owns which class gets which; the life of the process is in `worker`.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources

from postbud.app.api_parts import ApiParts, open_api
from postbud.app.clock import SteadyClock
from postbud.app.config import Settings
from postbud.app.file_parts import FileParts
from postbud.app.link_parts import ConsoleParts
from postbud.app.owners import Owners
from postbud.app.token_keys import load_token_keys
from postbud.app.translate import egress_settings, limits, listener_settings, retry_schedule, scheduler_settings
from postbud.bounce.classify import Classifier
from postbud.delivery.attempt import Attempts, DeliveryCounters
from postbud.delivery.cache import ContentCache
from postbud.delivery.capture import Captures
from postbud.delivery.commands import Commands
from postbud.delivery.held import HeldOctets
from postbud.delivery.holds import Holds
from postbud.delivery.keeping import Keeping
from postbud.delivery.notify import Notifier, NotifySettings
from postbud.delivery.offload import Offload
from postbud.delivery.record import Recorder
from postbud.delivery.returned import Returns
from postbud.delivery.scheduler import Scheduler
from postbud.delivery.signing import Signer
from postbud.egress.egress import Egress
from postbud.egress.limits import NodeLimits
from postbud.inbound.receive import InboundGate, InboundSettings
from postbud.link.file import FileFollower
from postbud.link.leases import MonthLeases
from postbud.link.quota import HourlyCaps
from postbud.link.replica import Replica
from postbud.link.replicated import ReplicaFollower
from postbud.link.ship import FileShipper
from postbud.link.ship_http import HttpShipper
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.token import TokenKeys
from postbud.shaping.backoff import RetrySchedule
from postbud.smtpd.counters import SmtpCounters
from postbud.smtpd.listener import SmtpListener
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import Role, TlsMode
from postbud.smtpd.tls import ServerTls, make_self_signed
from postbud.spool.sqlite import Spool
from postbud.submission.accept import SubmissionGate, SubmissionSettings
from postbud.submission.quotas import Quotas
from postbud.telemetry.logs import Lines, Log

_CAPTURE_SCHEDULE = RetrySchedule(first_seconds=5.0, max_seconds=60.0)  # a console comes back sooner than a site


def shipped_classifier() -> Classifier:
    """Give the classifier of the rules that come with the package."""
    return Classifier.from_toml(resources.files("postbud.bounce").joinpath("rules.toml").read_text(encoding="utf-8"))


def utc_now() -> datetime:
    """Give the clock's time: the one place that asks for it."""
    return datetime.fromtimestamp(time.time(), UTC)


def log_bug(log: Log, what: str, error: BaseException) -> None:
    """Log an exception that nobody expected, with its traceback."""
    log.error("bug", what=what, exc_info=error)


@dataclass
class Parts:
    """Everything a running worker consists of."""

    settings: Settings
    index: int
    log: Log
    lines: Lines
    replica: Replica
    spool: Spool
    egress: Egress
    scheduler: Scheduler
    holds: Holds
    sessions: Sessions
    listeners: list[SmtpListener]
    tls: ServerTls | None
    submission: SubmissionGate
    inbound: InboundGate
    returns: Returns
    smtp_counters: SmtpCounters
    delivery_counters: DeliveryCounters
    caps: HourlyCaps
    signing: Offload
    clock: Callable[[], float]
    follower: FileFollower | ReplicaFollower = field(init=False)
    shipper: FileShipper | HttpShipper = field(init=False)
    console: "ConsoleWorker | None" = None
    api: ApiParts | None = None
    lag_seconds: float = 0.0
    review_wanted: bool = True


@dataclass
class ConsoleWorker:
    """What runs in a worker only when there is a console."""

    parts: ConsoleParts
    commands: Commands
    months: MonthLeases
    keeping: Keeping


def wire(
    settings: Settings, source: FileParts | ConsoleParts, index: int, spool: Spool, group: asyncio.TaskGroup, log: Log,
    lines: Lines,
) -> Parts:  # fmt: skip
    """Build one worker; nothing runs yet. `source` is its directory: a file, or a console's."""
    relay = settings.config.relay
    clock = SteadyClock(time.time, time.monotonic)
    dice = random.Random(secrets.randbits(64))  # noqa: S311 (spreads retries and equal MX; secrets come from `secrets`)
    console = source if isinstance(source, ConsoleParts) else None
    replica = Replica(source.directory)
    keeping = console.keeping(replica, log) if console is not None else None
    signing = Offload("sign")
    cache = ContentCache()
    schedule = retry_schedule(settings)
    classifier = shipped_classifier()
    recorder = Recorder(schedule, classifier, spool.ids.event, clock, dice.random)
    notifier = Notifier(NotifySettings(settings.hostname, schedule.expire_after_seconds), replica, spool.ids, clock)
    signer = Signer(replica, signing, clock)
    counters = DeliveryCounters()
    held = HeldOctets()
    egress = Egress(egress_settings(settings), dice=dice, clock=time.monotonic)
    admitting: list[Scheduler] = []
    attempts = Attempts(
        spool, replica, signer, recorder, notifier, cache,
        lambda message, deliveries: admitting[0].admit(message, deliveries),  # noqa: PLW0108 (it is made below)
        clock, counters, held, log, keeping,
    )  # fmt: skip
    captures = Captures(
        attempts, Recorder(_CAPTURE_SCHEDULE, classifier, spool.ids.event, clock, dice.random),
        console.client if console is not None else None, clock,
    )  # fmt: skip
    scheduler = Scheduler(
        spool, egress, attempts, NodeLimits(settings.data / "run" / "egress-limits", index, time.monotonic),
        scheduler_settings(settings), clock, dice.random,
        lambda what, error: log_bug(log, what, error), captures,
    )  # fmt: skip
    admitting.append(scheduler)

    def admit(message: Message, content: Content, deliveries: Sequence[Delivery]) -> None:
        if isinstance(content.body, bytes):
            cache.remember(message.id, content)
        scheduler.admit(message, deliveries)

    caps = HourlyCaps(settings.data / "run" / "hourly-caps", clock)
    months = console.months(spool, clock, dice, log) if console is not None else None
    token_keys = _token_keys(settings, replica)
    submission = SubmissionGate(
        SubmissionSettings(
            hostname=settings.hostname,
            bounce_domain=relay.bounce_domain,
            size_limit_octets=relay.size_limit_octets,
            recipients_limit=relay.recipients_limit,
            expire_after_seconds=relay.expire_after_seconds,
            held_octets_per_account=max(1, relay.held_octets_per_account // settings.workers),
            captures=console is not None,
        ),
        replica, spool, token_keys, Quotas(caps, months), held.of, admit, clock, log,
    )  # fmt: skip
    returns = Returns(spool, notifier, classifier, spool.accepted_event, admit, spool.ids.event, clock)
    inbound = InboundGate(
        InboundSettings(settings.hostname, relay.bounce_domain, settings.data / "inbound"),
        spool,
        token_keys,
        lambda domain: replica.directory.is_return_path(domain),  # noqa: PLW0108 (the directory is replaced)
        Owners(settings.data / "run", spool.spool_id, returns.record).deliver, clock, log,
    )  # fmt: skip
    smtp_counters = SmtpCounters()
    sessions = Sessions(limits(settings), smtp_counters, log, group)
    listening = [listener_settings(settings, table) for table in relay.listener]
    tls = server_tls(settings) if settings.config.api.tls or any(one.tls is not TlsMode.NONE for one in listening) else None
    listeners = [
        SmtpListener(
            one,
            submission if one.role is Role.SUBMISSION else inbound,
            tls if one.tls is not TlsMode.NONE else None,
            sessions,
            utc_now,
        )
        for one in listening
    ]
    holds = Holds(spool, scheduler, replica, recorder, notifier, signer.has_key, held, clock)
    parts = Parts(
        settings, index, log, lines, replica, spool, egress, scheduler, holds, sessions, listeners, tls,
        submission, inbound, returns, smtp_counters, counters, caps, signing, clock,
    )  # fmt: skip
    _connect(parts, source, months, keeping, dice)

    def changed() -> None:
        log.info("directory_changed", generation=replica.generation)
        sessions.recheck()
        parts.review_wanted = True

    replica.on_change(changed)
    return parts


def _token_keys(settings: Settings, replica: Replica) -> Callable[[], TokenKeys]:
    """Give where token keys come from: the console's, else the relay's own file."""
    name = settings.config.relay.token_key_file
    own = load_token_keys(settings.path(name) if name else settings.data / "token.key")
    return lambda: replica.directory.token_keys or own


def _connect(
    parts: Parts, source: FileParts | ConsoleParts, months: MonthLeases | None, keeping: Keeping | None, dice: random.Random
) -> None:
    """Give a worker its API, who tells it of changes, and whom it tells of events: a file each, or the console."""
    parts.api = open_api(
        parts.settings, parts.index, parts.spool, parts.submission, parts.holds, parts.tls, parts.clock, utc_now, parts.log
    )  # fmt: skip

    def on_problem(why: str) -> None:
        parts.log.error("directory_not_read", why=why)

    def on_changed() -> None:
        parts.review_wanted = True  # what an account has on hold is counted anew

    if isinstance(source, FileParts):
        parts.follower = source.follower(parts.replica, on_problem)
        parts.shipper = source.shipper(parts.spool, parts.clock)
        return
    commands = source.commands(parts.spool, parts.holds, parts.replica, parts.submission, parts.clock, on_changed, parts.log)
    parts.follower = source.follower(parts.replica, commands, on_problem)
    parts.shipper = source.shipper(parts.spool, parts.clock, dice, parts.log)
    if months is not None and keeping is not None:
        parts.console = ConsoleWorker(source, commands, months, keeping)


def server_tls(settings: Settings) -> ServerTls:
    """Give the certificate of this machine, made when there is none."""
    relay = settings.config.relay
    if relay.certificate_file and relay.certificate_key_file:
        return ServerTls(settings.path(relay.certificate_file), settings.path(relay.certificate_key_file))
    certificate, key = settings.data / "tls" / "certificate.pem", settings.data / "tls" / "key.pem"
    make_self_signed(certificate, key, settings.hostname, utc_now)
    return ServerTls(certificate, key)
