"""What one accepted message costs in Python: the sans-IO session alone, and with the session that asks a gate.

Run: python bench/wire_server.py [messages]. Prints microseconds per 4 KiB message; no socket, no disk.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import Any

import structlog
import uvloop

from postbud.model.content import BodyFacts, Content
from postbud.smtpd.counters import SmtpCounters
from postbud.smtpd.session import Session
from postbud.smtpd.sessions import Sessions
from postbud.smtpd.settings import Limits, ListenerSettings, TlsMode
from postbud.wire.events import ContentChunk, ServerSettings
from postbud.wire.server import ServerConnection

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HEADER = b"From: <a@acme.example>\r\nTo: <b@dest.example>\r\nSubject: Benchmark\r\n\r\n"
CONTENT = HEADER + b"The quick brown fox jumps over the lazy dog and does it again now.\r\n" * 59
ENVELOPE = b"MAIL FROM:<a@acme.example> SIZE=4096\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n"


class Writer:
    """Keeps chunks."""

    needs_drain = False

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    async def drain(self) -> None:
        """Nothing waits."""

    async def finish(self) -> Content:
        header, _, body = b"".join(self.chunks).partition(b"\r\n\r\n")
        return Content(header + b"\r\n", body, BodyFacts(len(body), b""))

    def discard(self) -> None:
        self.chunks.clear()


class Gate:
    """Says yes to all."""

    requires_auth = False
    size_limit_octets = 50 << 20
    recipients_limit = 1_000

    def authenticate(self, *_asked: Any):
        raise AssertionError

    def identify(self, *_asked: Any):
        return None

    def check(self, *_asked: Any):
        return None

    def mail(self, *_asked: Any):
        return None

    def rcpt(self, *_asked: Any):
        return None

    def open_content(self):
        return Writer()

    async def accept(self, *_asked: Any):
        return "msg_1"


class Pipe(asyncio.Transport):
    """A transport to nowhere that tells when the final reply came."""

    def __init__(self, done: asyncio.Queue[bytes]) -> None:
        super().__init__()
        self.done = done

    def write(self, data) -> None:
        if b"queued" in data:
            self.done.put_nowait(bytes(data))

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        """Nothing is buffered."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


def wire(messages: int) -> float:
    """Give the seconds for the sans-IO session alone."""
    connection = ServerConnection(ServerSettings("relay.example", 50 << 20, 1_000))
    connection.feed(b"EHLO client.example\r\n")
    connection.next_event()
    wire_form = CONTENT + b".\r\n"
    started = time.perf_counter()
    for _ in range(messages):
        for octets in (ENVELOPE, wire_form):
            connection.feed(octets)
            while (event := connection.next_event()) is not None:
                if not isinstance(event, ContentChunk):
                    connection.accept("msg_1")
            connection.take()
    return time.perf_counter() - started


async def session(messages: int) -> float:
    """Give the seconds for a session with a gate that says yes."""
    async with asyncio.TaskGroup() as tasks:
        sessions = Sessions(Limits(), SmtpCounters(), structlog.get_logger(), tasks)
        settings = ListenerSettings("127.0.0.1:0", "relay.example", tls=TlsMode.NONE)
        sessions.connections.enter("127.0.0.1")
        one = Session(settings, Gate(), None, sessions, lambda: NOW, "127.0.0.1", 1, "127.0.0.1")
        done: asyncio.Queue[bytes] = asyncio.Queue()
        one.connection_made(Pipe(done))
        one.data_received(b"EHLO client.example\r\n")
        wire_form = CONTENT + b".\r\n"
        started = time.perf_counter()
        for _ in range(messages):
            one.data_received(ENVELOPE)
            one.data_received(wire_form)
            await done.get()
        spent = time.perf_counter() - started
        one.connection_lost(None)
        sessions.close()
    return spent


def main() -> None:
    """Measure and print."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"wire alone          {wire(messages) / messages * 1e6:7.1f} µs per message of {len(CONTENT)} octets")
    print(f"session with a gate {uvloop.run(session(messages)) / messages * 1e6:7.1f} µs per message of {len(CONTENT)} octets")


if __name__ == "__main__":
    main()
