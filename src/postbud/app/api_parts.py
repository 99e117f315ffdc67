"""The sending API's parts of a worker, and what workers ask each other for it over their control sockets."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import apsw

from postbud.app.config import Settings
from postbud.app.control import Handler, call
from postbud.app.translate import networks
from postbud.delivery.holds import Holds
from postbud.httpd.api import Api
from postbud.httpd.caller import Doorkeeper
from postbud.httpd.desk import Desk, Peers
from postbud.httpd.listener import ApiListener
from postbud.httpd.lookup import Lookup
from postbud.httpd.settings import ApiCounters, ApiSettings
from postbud.smtpd.tls import ServerTls
from postbud.spool.sqlite import Spool
from postbud.submission.accept import SubmissionGate
from postbud.telemetry.logs import Log

_FORGET_SECONDS = 300.0
_PEER_SECONDS = 20.0
_SILENT: dict[str, Any] = {"silent": True}


@dataclass
class ApiParts:
    """What serves the API in one worker."""

    settings: ApiSettings
    listener: ApiListener
    desk: Desk
    lookup: Lookup
    counters: ApiCounters
    spool: Spool
    clock: Callable[[], float]

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to answer."""
        note = partial(_note_workers, workers=self.settings.workers, now=self.clock())
        self.desk.moved_at = await self.spool.run(note)
        await self.listener.start(tasks)

    async def forget_old(self) -> None:
        """Forget answers of yesterday, for ever."""
        while True:
            await self.desk.forget_old()
            await asyncio.sleep(_FORGET_SECONDS)

    def handlers(self) -> dict[str, Handler]:
        """Give what other workers may ask."""
        return {
            "api_take": self.desk.take_from_peer,
            "api_answer": self.desk.answer_to_peer,
            "api_show": self.lookup.answer_show,
            "api_cancel": self.lookup.answer_cancel,
        }

    def numbers(self) -> dict[str, float]:
        """Give the API's metrics, by their names in the catalogue."""
        counters = self.counters
        return {
            "postbud_api_connections_open": counters.connections_open,
            "postbud_api_connections_refused": counters.connections_refused,
            "postbud_api_requests": counters.requests,
            "postbud_api_key_failed": counters.key_failed,
            "postbud_api_key_throttled": counters.key_throttled,
            "postbud_api_timeouts": counters.timeouts,
            "postbud_api_faults": counters.faults,
            "postbud_api_replayed": counters.replayed,
            "postbud_api_forwarded": counters.forwarded,
        }


def api_settings(settings: Settings, index: int) -> ApiSettings:
    """From the settings file to what the API declares beside itself."""
    table = settings.config.api
    return ApiSettings(
        address=table.address,
        hostname=settings.hostname,
        worker=index,
        workers=settings.workers,
        trusted_proxies=networks(table.trusted_proxies, "api.trusted_proxies"),
        size_limit_octets=settings.config.relay.size_limit_octets,
        connections=max(1, table.connections // settings.workers),
        connections_per_address=max(1, -(-table.connections_per_address // settings.workers)),
    )


def open_api(
    settings: Settings, index: int, spool: Spool, gate: SubmissionGate, holds: Holds, tls: ServerTls | None,
    clock: Callable[[], float], utc_now: Callable[[], datetime], log: Log,
) -> ApiParts | None:  # fmt: skip
    """Build the API of one worker; None when no address is set. Nothing runs yet."""
    if not settings.config.api.address:
        return None
    own = api_settings(settings, index)
    counters = ApiCounters()
    peers = Peers(index, settings.workers, partial(_ask, settings), partial(_ask_all, settings, index))
    desk = Desk(gate, spool, peers, counters, clock)
    lookup = Lookup(spool, peers, partial(holds.cancel, why="cancelled by its sender"))
    doorkeeper = Doorkeeper(own, gate.authenticate_key, counters, time.monotonic)
    api = Api(own, gate, doorkeeper, desk, lookup, counters, log, utc_now)
    context = partial(tls.context, own.name) if tls is not None and settings.config.api.tls else None
    listener = ApiListener(own, api, counters, context, settings.config.relay.drain_seconds)
    return ApiParts(own, listener, desk, lookup, counters, spool, clock)


def _note_workers(connection: apsw.Connection, workers: int, now: float) -> float:
    """Note how many workers there are; tell when that changed last: until a day later, keys may be another worker's."""
    ask = "SELECT value FROM meta WHERE name = ?"
    known, since = connection.execute(ask, ("workers",)).get, connection.execute(ask, ("workers_since",)).get
    if known == workers and since is not None:
        return float(since)
    put = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
    connection.executemany(put, [("workers", workers), ("workers_since", int(now) + 1)])
    return now


async def _ask(settings: Settings, worker: int, request: dict[str, Any]) -> dict[str, Any]:
    return await call(settings.data / "run" / f"worker-{worker}.sock", request, _PEER_SECONDS)


async def _ask_all(settings: Settings, own: int, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask all others at once."""

    async def one(worker: int) -> dict[str, Any]:
        try:
            answer = await _ask(settings, worker, request)
        except (OSError, TimeoutError, ValueError):
            return _SILENT
        return _SILENT if "error" in answer else answer

    return await asyncio.gather(*(one(worker) for worker in range(settings.workers) if worker != own))
