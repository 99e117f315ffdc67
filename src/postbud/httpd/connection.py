"""One HTTP connection: uvicorn's own protocol over h11, with the limits that a server facing the internet needs besides.

Owns how many connections there may be, in all and from one client; the time that a header section may take (input I9); and
that a request that is no HTTP hears a problem like any other. h11 reads requests strictly and one way only.
"""

import asyncio
from collections import Counter
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from postbud.httpd.caller import address_key
from postbud.httpd.problem import CONTENT_TYPE, Code, Problem, problem, problem_of
from postbud.httpd.settings import ApiCounters, ApiSettings
from postbud.model.refusal import Refusal, Why

_LINGER_SECONDS = 2.0
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 429: b"Too Many Requests", 503: b"Service Unavailable"}


class Door:
    """What all connections of one worker share: limits and counts."""

    def __init__(self, settings: ApiSettings, counters: ApiCounters) -> None:
        self.settings = settings
        self.counters = counters
        self._open: Counter[str] = Counter()

    def enter(self, key: str) -> Problem | None:
        """Count a connection in; the problem says why it may not stay."""
        self._open[key] += 1
        self.counters.connections_open += 1
        if (
            self.counters.connections_open > self.settings.connections
            or self._open[key] > self.settings.connections_per_address
        ):
            self.counters.connections_refused += 1
            return problem_of(Refusal(Why.SHUTTING_DOWN, "too many connections; try again later"))
        return None

    def leave(self, key: str) -> None:
        """Count a connection out."""
        self.counters.connections_open -= 1
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


class _Lingering:
    """A transport that closes so that our last words are not lost: octets that nobody read would turn them into a reset."""

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self._transport = transport
        self._connection = connection
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Tell whether it closes."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Close; where a request was not read to its end, say so first and let the rest of it run into the sand for a while."""
        if self.is_closing():
            return
        self._closing = True
        unread = self._connection.hurried or self._connection.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not unread or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._connection.loop.call_later(_LINGER_SECONDS, self._transport.close)


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, door: Door, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = door
        self._key = ""
        self.hurried = False  # answered before a request was read
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own has it
        """Count it in, and begin to wait for a request."""
        super().connection_made(transport)
        lingering = _Lingering(transport, self)
        self.transport = cast("asyncio.Transport", lingering)
        cipher = transport.get_extra_info("cipher")
        self.app_state = {**self.app_state, "tls": f"{cipher[1]} {cipher[0]}" if cipher else None}
        self._key = address_key(str(self.client[0]) if self.client else "")
        no = self._door.enter(self._key)
        if no is not None:
            self._say(no)
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._rest()
        self._door.leave(self._key)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take octets; a header section that has begun must end in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._answering():
            self._rest()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Go on with what was sent behind the request."""
        super().on_response_complete()
        if self._deadline is None and self.conn.trailing_data[0] and not self.transport.is_closing():
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, if an answer has not begun; close in any case."""
        if self._answering():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._say(problem(Code.BAD_REQUEST, msg))
        else:
            self.transport.close()

    def _answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self._door.settings.header_seconds, self._late)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self._door.counters.timeouts += 1
        self._say(problem(Code.TIMEOUT, "the request did not come in time"))

    def _say(self, no: Problem) -> None:
        """Write an answer past h11, which may be in no state to, and close."""
        self._rest()
        body = no.body
        lines = [
            b"HTTP/1.1 %d %b" % (no.status, _PHRASES.get(no.status, b"Error")),
            b"content-type: %b" % CONTENT_TYPE.encode("ascii"),
            b"content-length: %d" % len(body),
            *(f"{name}: {value}".encode("ascii") for name, value in no.headers.items()),
            b"connection: close",
        ]
        self.hurried = True
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
