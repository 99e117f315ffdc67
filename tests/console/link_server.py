"""The link as tests speak to it: the real application behind a real uvicorn in a thread, on a Unix socket and on TCP."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette

from postbud.console.link.content import ContentStore
from postbud.console.link.endpoints import Link, utc_now
from postbud.model.event import EventKind
from postbud.model.ids import IdSource
from postbud.model.link import EventBatch, NumberedEvent
from postbud.telemetry.logs import configure
from tests.ports import free_port

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


class Served:
    """A link that is served: `local` speaks on the Unix socket, `remote` on TCP, where a token is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "l.sock"
        log, self._lines = configure(level="error", as_json=True, worker="link-test")
        self.content = ContentStore(folder / "content")
        self.link = Link(self.content, log, utc_now)
        app = Starlette(routes=self.link.routes())
        common = {
            "app": app,
            "log_level": "error",
            "lifespan": "off",
            "proxy_headers": False,
            "ws": "none",
            "timeout_graceful_shutdown": 1,
        }
        self._servers = [
            uvicorn.Server(uvicorn.Config(uds=str(self.socket), **common)),
            uvicorn.Server(uvicorn.Config(host="127.0.0.1", port=self.port, **common)),
        ]
        self._threads = [threading.Thread(target=server.run) for server in self._servers]

    def start(self) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            thread.start()
            while not server.started:
                time.sleep(0.01)
                assert thread.is_alive()

    def stop(self) -> None:
        for server in self._servers:
            server.should_exit = True
        for thread in self._threads:
            thread.join()
        self.link.close()

    def local(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://link", timeout=40)

    def remote(self, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=40, trust_env=False)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    link = Served(folder)
    link.start()
    try:
        yield link
    finally:
        link.stop()


class Relay:
    """Makes the events of one spool, as a relay would."""

    def __init__(self, spool: int = 7, account: str = "acct_a", node: str = "n1") -> None:
        self.spool = spool
        self.account = account
        self.node = node
        self.seq = 0
        self._milliseconds = int(AT.timestamp() * 1000)
        self._ids = IdSource(spool, lambda: self._milliseconds, bytes)

    def event(self, kind: EventKind, at: datetime = AT, **fields: object) -> NumberedEvent:
        self.seq += 1
        given = {"account": self.account, "server": "srv_a", "credential": "crd_a", "from_domain": "a.example", **fields}
        return NumberedEvent(id=self._ids.event(), kind=kind, at=at, seq=self.seq, **given)  # type: ignore[arg-type]

    def accepted(self, *recipients: str, at: datetime = AT, **fields: object) -> NumberedEvent:
        return self.event(
            EventKind.ACCEPTED,
            at,
            message=self._ids.message(),
            message_at=at,
            recipients=recipients or ("ann@b.example",),
            deliveries=tuple(self._ids.delivery() for _ in recipients or ("ann@b.example",)),
            **{"subject": "Hello", "size_octets": 1000, "client": "192.0.2.1", **fields},
        )

    def became(self, of: NumberedEvent, kind: EventKind, at: datetime = AT, place: int = 0, **fields: object) -> NumberedEvent:
        return self.event(
            kind,
            at,
            message=of.message,
            message_at=of.message_at,
            delivery=of.deliveries[place],
            recipient=of.recipients[place],
            **{"account": of.account, "attempt": 1, **fields},
        )

    def batch(self, *events: NumberedEvent) -> EventBatch:
        return EventBatch(node=self.node, spool=self.spool, events=events)

    def body(self, *events: NumberedEvent) -> bytes:
        return msgspec.json.encode(self.batch(*events))
