"""One relay worker: wires every stage of the journey into one process and runs it until told to stop.

Owns composition only. Start: spool, directory, egress, gates, listeners, control socket; then "ready" on its standard output.
Stop (SIGTERM, or the supervisor gone): accept no more, let transactions and attempts finish, close the spool.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from postbud.app.config import Settings
from postbud.app.control import ControlServer
from postbud.app.file_parts import FileParts
from postbud.app.link_parts import ConsoleParts
from postbud.app.parts import ConsoleWorker, Parts, log_bug, utc_now, wire
from postbud.app.queue_ops import handlers
from postbud.app.translate import spool_settings
from postbud.link.ship import last_shipped
from postbud.link.ship_http import HttpShipper
from postbud.model.refusal import Refusal
from postbud.net.http import LinkDown, LinkRefused
from postbud.smtpd.tls import ServerTls
from postbud.spool.adopt import adopt
from postbud.spool.sqlite import Spool
from postbud.spool.values import SpoolBroken, SpoolUnusable
from postbud.telemetry.logs import Log, configure

_REVIEW_SECONDS = 60.0
_LAG_PROBE_SECONDS = 0.25
_GC_ALLOCATIONS = 50_000
_CERTIFICATE_WARN_DAYS = 14
_CERTIFICATE_WARN_SECONDS = 3600.0
_SHIP_REST_SECONDS = 10.0


async def run_worker(settings: Settings, directory: Path | None, index: int) -> int:
    """Run a worker; give its exit status: 0 after a clean stop, 1 when the spool broke (the supervisor starts it anew).

    `directory` is the directory file; None: the directory is a console's, in DATA/replica, kept there by the supervisor.
    """
    telemetry = settings.config.telemetry
    _raise_descriptors()
    log, lines = configure(level=telemetry.log_level, as_json=telemetry.log_json, worker=str(index))
    stop = asyncio.Event()
    broken: list[str] = []

    def on_broken(why: str) -> None:
        broken.append(why)
        log.error("spool_broken", why=why)
        stop.set()

    spool = await Spool.open(settings.data / "spool" / f"worker-{index}", spool_settings(settings), on_broken=on_broken)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch_parent(stop))
            source = await _source(settings, directory, index, spool, stop, log)
            if source is None:
                watching.cancel()
                return 0
            parts = wire(settings, source, index, spool, group, log, lines)
            control = ControlServer(
                settings.data / "run" / f"worker-{index}.sock", handlers(parts), lambda what, error: log_bug(log, what, error)
            )
            await control.start()
            _spare_the_collector()
            helpers = [
                group.create_task(parts.follower.run()),
                group.create_task(parts.shipper.run(lambda why: log.error("ship_waits", why=why))),
                group.create_task(_review(parts)),
                group.create_task(_probe_lag(parts)),
                watching,
            ]
            if parts.console is not None:
                helpers += _start_console(parts, parts.console, group)
            if parts.tls is not None:
                helpers.append(group.create_task(_follow_certificate(parts, parts.tls)))
            scheduling = group.create_task(parts.scheduler.run())
            if index == 0:
                await _adopt_orphans(parts)
            helpers += await _listen(parts, group)
            log.info("ready", listeners=[f"{item.settings.name}" for item in parts.listeners], spool=spool.spool_id)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await stop.wait()
            log.info("stopping")
            await _shut_down(parts, control, scheduling, broken=bool(broken))
            for helper in helpers:
                helper.cancel()
    finally:
        await spool.close()
    if not broken:
        log.info("stopped")
    return 1 if broken else 0


async def _listen(parts: Parts, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Accept mail on every listener; give the helpers that this takes."""
    for listener in parts.listeners:
        await listener.start()
    if parts.api is None:
        return []
    await parts.api.start(group)
    return [group.create_task(_guarded(parts, parts.api.forget_old, "forgetting old answers"))]


async def _source(
    settings: Settings, directory: Path | None, index: int, spool: Spool, stop: asyncio.Event, log: Log
) -> FileParts | ConsoleParts | None:
    """Give where the directory comes from, once there is one; None when told to stop before."""
    if directory is not None:
        return FileParts.open(settings, directory, index)
    return await ConsoleParts.open(settings, index, spool, stop, log)


def _start_console(parts: Parts, console: ConsoleWorker, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Start what only a worker with a console has."""
    return [
        group.create_task(_guarded(parts, console.commands.run, "carrying out commands")),
        group.create_task(_guarded(parts, console.months.run, "leasing allowances")),
        group.create_task(_guarded(parts, console.keeping.run, "putting content away")),
    ]


async def _guarded(parts: Parts, run: Callable[[], Awaitable[None]], what: str) -> None:
    """Run a helper, anew after an exception of ours: mail goes on without it meanwhile."""
    while True:
        try:
            await run()
        except SpoolBroken:
            return  # the spool told the wiring already
        except Exception as error:  # noqa: BLE001 (the one handler of this helper)
            log_bug(parts.log, what, error)
        await asyncio.sleep(1.0)


def _raise_descriptors() -> None:
    """Use all the descriptors that the system allows: each session and each connection out is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_the_collector() -> None:
    """Let the garbage collector walk what was made since the start only, and seldom: mail in memory makes few cycles, and each
    full collection walks all of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 20, 50)


async def _adopt_orphans(parts: Parts) -> None:
    """Take over the spools of workers that are no more (fewer workers than before)."""
    for folder in sorted((parts.settings.data / "spool").glob("worker-*")):
        number = folder.name.removeprefix("worker-")
        if number.isdigit() and int(number) >= parts.settings.workers:
            events = parts.settings.data / "events"
            try:
                moved = await adopt(folder, parts.spool, shipped_seq=partial(last_shipped, events, folder.name))
            except (SpoolUnusable, Refusal) as error:
                parts.log.warning("not_adopted", folder=folder.name, why=str(error))
                continue
            parts.log.info("adopted", folder=folder.name, deliveries=moved)
            parts.scheduler.rouse()


async def _review(parts: Parts) -> None:
    """Keep holds true: after each change of the directory, and once a minute for the clock's sake."""
    next_at = 0.0
    while True:
        await asyncio.sleep(0.1)
        now = time.monotonic()
        if not parts.review_wanted and now < next_at:
            continue
        parts.review_wanted = False
        next_at = now + _REVIEW_SECONDS
        try:
            await parts.holds.review()
        except SpoolBroken:
            return  # the spool told the wiring already
        except Refusal as refusal:
            parts.log.warning("review_waits", why=refusal.private or refusal.public)
            next_at = now + 1.0
        except Exception as error:  # noqa: BLE001 (mail goes on while holds wait for their review)
            log_bug(parts.log, "reviewing holds", error)


async def _follow_certificate(parts: Parts, tls: ServerTls) -> None:
    """Serve a certificate that was replaced to new connections; warn of one that ends soon or has ended (row C9)."""
    warn_at = 0.0
    while True:
        try:
            if tls.reload_if_changed():
                parts.log.info("certificate_reloaded")
                warn_at = 0.0
            if time.monotonic() >= warn_at:
                warn_at = time.monotonic() + _CERTIFICATE_WARN_SECONDS
                left_days = (tls.expires_at() - utc_now()).days
                if left_days < _CERTIFICATE_WARN_DAYS:
                    parts.log.warning("certificate_ends", days=left_days, file=str(tls.certificate_file))
        except (OSError, ValueError) as error:
            parts.log.warning("certificate_not_reloaded", why=str(error))
        await asyncio.sleep(1.0)


async def _probe_lag(parts: Parts) -> None:
    """Measure how late the event loop runs, and tell the supervisor that it runs at all (row 25)."""
    beat = os.open(parts.settings.data / "run" / f"worker-{parts.index}.beat", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_PROBE_SECONDS)
            lag = time.monotonic() - before - _LAG_PROBE_SECONDS
            parts.lag_seconds = max(lag, parts.lag_seconds * 0.9)
            os.utime(beat)
    finally:
        os.close(beat)


async def _watch_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor is gone: its end of our standard input closes (row 11)."""
    if os.environ.get("POSTBUD_SUPERVISED") != "1":
        return
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def _shut_down(parts: Parts, control: ControlServer, scheduling: asyncio.Task[None], *, broken: bool) -> None:
    for listener in parts.listeners:
        listener.stop()
    if parts.api is not None:
        parts.api.listener.stop()
    control.stop()
    seconds = 0.0 if broken else parts.settings.config.relay.drain_seconds
    parts.scheduler.stop()
    until = asyncio.get_running_loop().time() + seconds
    await parts.sessions.drain(seconds)
    if parts.api is not None:
        await parts.api.listener.drained(until - asyncio.get_running_loop().time())
    try:
        async with asyncio.timeout_at(until):
            await asyncio.shield(scheduling)
    except TimeoutError:
        scheduling.cancel()
    if not broken:
        await _ship_the_rest(parts)
    parts.caps.close()
    parts.scheduler.close()
    parts.signing.close()
    if parts.console is not None:
        parts.console.parts.source.close()
        await parts.console.parts.client.close()


async def _ship_the_rest(parts: Parts) -> None:
    """Ship what there is; what is not shipped now is shipped after the next start."""
    with contextlib.suppress(OSError, Refusal, LinkDown, LinkRefused, TimeoutError):
        async with asyncio.timeout(_SHIP_REST_SECONDS):
            while await parts.shipper.ship_once():
                pass
    if isinstance(parts.shipper, HttpShipper):
        with contextlib.suppress(Refusal):
            await parts.shipper.finish()
