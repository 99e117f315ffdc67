"""The API's listener: a socket that all workers share, and uvicorn's server on it as one task of the worker.

Signals are the worker's: it stops the server, which accepts no more, lets requests finish, and ends.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from postbud.httpd.api import Api
from postbud.httpd.connection import Connection, Door
from postbud.httpd.settings import ApiCounters, ApiSettings

_BACKLOG = 1_024


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield


class ApiListener:
    """Listens on one address."""

    def __init__(
        self,
        settings: ApiSettings,
        api: Api,
        counters: ApiCounters,
        context: Callable[[], ssl.SSLContext] | None,
        drain_seconds: float,
    ) -> None:
        """`context` gives the current TLS context; it is asked for every connection, so that a new certificate is served."""
        self.settings = settings
        self.port = 0
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)  # our own log says what matters
        config = uvicorn.Config(
            api, http=partial(Connection, door=Door(settings, counters)), ws="none", lifespan="off", loop="none",  # type: ignore[arg-type]  # a factory does as well as a class
            log_config=None, access_log=False, proxy_headers=False, server_header=False, backlog=_BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds, timeout_graceful_shutdown=max(1, int(drain_seconds)),
            h11_max_incomplete_event_size=settings.header_octets,
        )  # fmt: skip
        config.load()
        config.ssl = _following(context) if context is not None else None
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Bind and begin to accept. Raises `OSError` when the address cannot be had."""
        listening = await _bind(self.settings.address)
        self.port = listening.getsockname()[1]
        self._task = tasks.create_task(self._server.serve([listening]))
        while not self._server.started:  # noqa: ASYNC110 (uvicorn tells it by this flag only)
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Accept no more; requests that are under way go on. Idempotent."""
        self._server.should_exit = True

    async def drained(self, seconds: float) -> None:
        """Wait until every request has ended, for so long; what has not is cut off."""
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=max(seconds, 0.2))
        if not done:
            self._server.force_exit = True
            self._task.cancel()


async def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    infos = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, kind, protocol, _, where = infos[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(where)
    except OSError:
        listening.close()
        raise
    return listening


def _following(context: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Give a context that has each handshake use the current one."""

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: Any) -> None:
        connection.context = context()

    first = context()
    first.sni_callback = choose
    return first
