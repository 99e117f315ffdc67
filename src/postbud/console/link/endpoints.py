"""What the link answers: each endpoint reads its request, has a thread do the work, and answers JSON or a problem.

Bodies are read with a bound before they are looked at. Knows HTTP; the work itself is in `directory`, `quota`, `services`,
`content` and `mail.ingest`. RFC 9110 (status codes), RFC 6750 (bearer tokens), RFC 9457 (problems).
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from django.db import connection
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from postbud.console.configuration import current
from postbud.console.link import directory, quota, services
from postbud.console.link.allowance import allowance_of, server_is_of
from postbud.console.link.content import MAX_OCTETS, ContentError, ContentStore
from postbud.console.link.models import Node
from postbud.console.link.threads import Busy, Threads, Unavailable
from postbud.console.link.waiting import Sequencer
from postbud.console.mail.ingest import ingest, mark_of, may_ship
from postbud.model.link import WAIT_SECONDS, EventBatch, HighWater, LeaseRequest, NodeState
from postbud.model.sealed import SealError
from postbud.telemetry.logs import Log, configure

MAX_BATCH_OCTETS = 32 * 1024 * 1024
MAX_BATCH_EVENTS = 5_000
MAX_BODY_OCTETS = 1024 * 1024
_MAX_NUMBER = (1 << 63) - 1
_MAX_HASH = (1 << 64) - 1
_MAX_SPOOL = (1 << 32) - 1

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class Problem(Exception):  # noqa: N818  # RFC 9457's word
    """An answer that says no."""

    def __init__(self, status: int, title: str, detail: str = "") -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail


class Link:
    """The endpoints, and what they share."""

    def __init__(self, content: ContentStore, log: Log, clock: Callable[[], datetime]) -> None:
        """Wire the pools: one thread looks at the sequence, few write, some read."""
        embedded = connection.vendor == "sqlite"
        self._content = content
        self._log = log
        self._clock = clock
        self._looking = Threads("link-look", 1, 1_000)
        self._reading = Threads("link-read", 4, 200)
        self._ingesting = Threads("link-ingest", 1 if embedded else 3, 64)
        self._writing = Threads("link-write", 1 if embedded else 3, 200)
        self._sequencer = Sequencer(self._looking, lambda: directory.current()[0])

    def end_waiting(self) -> None:
        """Answer those who wait for news now: the process stops."""
        self._sequencer.end()

    def routes(self) -> list[Route]:
        """Give the endpoints by path and method."""
        return [
            self._route("/link/directory", self.get_directory, "GET"),
            self._route("/link/sets", self.get_sets, "GET"),
            self._route("/link/sets/{name:path}", self.get_set, "GET"),
            self._route("/link/events", self.get_mark, "GET"),
            self._route("/link/events", self.post_events, "POST"),
            self._route("/link/quota", self.post_quota, "POST"),
            self._route("/link/state", self.post_state, "POST"),
            self._route("/link/content/{message}", self.put_content, "PUT"),
            self._route("/link/content/{message}", self.get_content, "GET"),
            self._route("/link/health", self.get_health, "GET"),
        ]

    def close(self) -> None:
        """End the threads and their connections."""
        for pool in (self._looking, self._reading, self._ingesting, self._writing):
            pool.close()

    async def get_directory(self, request: Request) -> Response:
        """Give what changed in the directory; wait for a change when asked to."""
        since, until = _since(request), _until(request)
        while True:
            page = await self._reading.run(directory.page, since)
            if page.changes or page.restart or not await self._sequencer.wait_beyond(page.seq, until):
                return _json(page)

    async def get_sets(self, request: Request) -> Response:
        """Give what changed in the address sets; wait for a change when asked to."""
        since, until = _since(request), _until(request)
        while True:
            page = await self._reading.run(directory.set_changes, since)
            if page.changes or page.restart or not since or not await self._sequencer.wait_beyond(page.seq, until):
                return _json(page)

    async def get_set(self, request: Request) -> Response:
        """Give a page of a set."""
        name = request.path_params["name"]
        after = _number(request, "after", _MAX_HASH) if "after" in request.query_params else None
        return _json(await self._reading.run(directory.set_page, name, after))

    async def get_mark(self, request: Request) -> Response:
        """Give a spool's high-water mark."""
        return _json(HighWater(await self._reading.run(mark_of, _number(request, "spool", _MAX_SPOOL))))

    async def post_events(self, request: Request) -> Response:
        """Take a batch of events."""
        body = await _body(request, MAX_BATCH_OCTETS)
        mark = await self._ingesting.run(self._ingest, body, request.state.node)
        return _json(HighWater(mark))

    def _ingest(self, body: bytes, node: Node | None) -> int:
        if b"\\u0000" in body:  # no column of PostgreSQL holds it
            body = body.replace(b"\\u0000", b"\\ufffd")
        batch = _decode(body, EventBatch)
        if len(batch.events) > MAX_BATCH_EVENTS:
            raise Problem(413, "Too many events", f"a batch has at most {MAX_BATCH_EVENTS}")
        if not 0 <= batch.spool <= _MAX_SPOOL:
            raise Problem(400, "Bad request", "spool: not a number of a spool")
        before = 0
        for event in batch.events:
            if not before < event.seq <= _MAX_NUMBER:
                raise Problem(400, "Bad request", "events: numbers do not rise")
            before = event.seq
        if node is not None:
            if not may_ship(batch.spool, node.name):
                raise Problem(403, "Forbidden", "the spool is another node's")
            batch = msgspec.structs.replace(batch, node=node.name)
        return ingest(batch, self._log)

    async def post_quota(self, request: Request) -> Response:
        """Lease a part of an account's month."""
        wanted = _decode(await _body(request, MAX_BODY_OCTETS), LeaseRequest)
        if not wanted.id or len(wanted.id) > 64 or not 0 <= wanted.wanted <= quota.MOST_AT_ONCE:
            raise Problem(400, "Bad request", f"id has 1 to 64 characters, wanted is 0 to {quota.MOST_AT_ONCE}")
        return _json(await self._writing.run(self._lease, wanted))

    def _lease(self, wanted: LeaseRequest) -> Any:
        found, allowance = allowance_of(wanted.account)
        if not found:
            raise Problem(404, "No such account")
        return quota.lease(wanted, allowance, self._clock())

    async def post_state(self, request: Request) -> Response:
        """Keep what a node says of itself."""
        state = _decode(await _body(request, MAX_BODY_OCTETS), NodeState)
        await self._writing.run(services.note_state, state, request.state.node, self._clock())
        return Response(status_code=204)

    async def put_content(self, request: Request) -> Response:
        """Keep a content; `account` and `server` in the query say whose."""
        account, server = request.query_params.get("account", ""), request.query_params.get("server", "")
        body = await _body(request, MAX_OCTETS)
        await self._writing.run(self._put, account, server, request.path_params["message"], body)
        return Response(status_code=204)

    async def get_content(self, request: Request) -> Response:
        """Give back a content to the relay that was told to send it again: `command` in the query is what told it."""
        command = request.query_params.get("command", "")
        octets = await self._reading.run(self._resendable, command, request.path_params["message"])
        if octets is None:
            raise Problem(404, "Not kept")
        return Response(octets, media_type="message/rfc822")

    def _resendable(self, command: str, message: str) -> bytes | None:
        account = services.account_to_resend(command, message, self._clock())
        try:
            return self._content.read(account, message) if account is not None else None
        except (OSError, SealError) as error:
            self._log.error("content_not_read", message=message, why=str(error))
            return None

    def _put(self, account: str, server: str, message: str, body: bytes) -> None:
        if not server_is_of(account, server, message):
            raise Problem(404, "No such server")
        try:
            self._content.put(account, server, message, body, self._clock())
        except ContentError as error:
            raise Problem(400, "Bad request", str(error)) from error
        except OSError as error:
            self._log.error("content_not_kept", message=message, why=str(error))
            raise Problem(507, "Insufficient storage") from error

    async def get_health(self, _request: Request) -> Response:
        """Say that the database answers, and where the directory stands."""
        value, _ = await self._looking.run(directory.current)
        return _json({"status": "ok", "seq": value})

    def _route(self, path: str, endpoint: Endpoint, method: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                request.state.node = await self._authenticate(request)
                return await endpoint(request)
            except Problem as problem:
                return _problem(problem.status, problem.title, problem.detail)
            except Busy:
                return _problem(503, "Busy", "too much waits already; try again")
            except Unavailable as error:
                self._log.error("link_database", path=path, why=str(error))
                return _problem(503, "Unavailable", "the console's database does not answer; try again")
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:  # noqa: BLE001  # the one handler: a bug is logged, never shown
                self._log.error("link_failed", path=path, exc_info=error)
                return _problem(500, "Internal error")

        return Route(path, answer, methods=[method])

    async def _authenticate(self, request: Request) -> Node | None:
        """Give the node that speaks; None on the Unix socket, whose folder only this machine's relay may enter."""
        server = request.scope.get("server")
        if server is not None and server[1] is None and request.scope.get("client") is None:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        node = None
        if scheme.lower() == "bearer" and 0 < len(token) <= 200:
            node = await self._reading.run(services.node_of_token, token.strip())
        if node is None:
            raise Problem(401, "Unauthorized", "a node's token is needed; `postbud node add` makes one")
        return node


def make_application() -> Starlette:
    """Wire the application from the console's settings."""
    log, _ = configure(level="warning", as_json=True, worker="link")
    link = Link(ContentStore(current().folder / "content"), log, utc_now)
    application = Starlette(routes=link.routes())
    application.state.end_waiting = link.end_waiting
    return application


def utc_now() -> datetime:
    """Give the instant."""
    return datetime.fromtimestamp(time.time(), UTC)


async def _body(request: Request, most: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > most:
        raise Problem(413, "Content too large", f"at most {most} octets")
    parts: list[bytes] = []
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise Problem(413, "Content too large", f"at most {most} octets")
        parts.append(part)
    return b"".join(parts)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise Problem(400, "Bad request", str(error)[:300]) from error


def _number(request: Request, name: str, most: int, least: int = 0) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
        raise Problem(400, "Bad request", f"{name}: not a number from {least} to {most}")
    return int(text)


def _since(request: Request) -> int:
    return _number(request, "since", _MAX_NUMBER)


def _until(request: Request) -> float:
    wait = _number(request, "wait", 3600) if "wait" in request.query_params else 0
    return time.monotonic() + min(wait, WAIT_SECONDS)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _problem(status: int, title: str, detail: str = "") -> Response:
    content = {"type": "about:blank", "title": title, "status": status} | ({"detail": detail} if detail else {})
    headers = {"Retry-After": "1"} if status == 503 else {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Response(msgspec.json.encode(content), status, headers, "application/problem+json")
