"""The API: its routes, what each does in the order of the journey, and the one place where a no becomes an answer.

Owns the front that every request passes (both lengths said, a key in the address, an exception that nobody expected).
Documentation for its users: `docs/api.md`; its description for programs: `openapi`.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from postbud.httpd.body import Bodies, ClientGone, chunks, media_type, whole
from postbud.httpd.caller import Doorkeeper, address_of, header, refuse_key_in_address
from postbud.httpd.desk import Desk, Parcel, key_of
from postbud.httpd.lookup import Lookup
from postbud.httpd.openapi import describe
from postbud.httpd.order import Order, compose_content, read_envelope, read_order, refuse_fields
from postbud.httpd.problem import CONTENT_TYPE, Code, FieldError, Problem, catalogue, problem, problem_of
from postbud.httpd.settings import ApiCounters, ApiSettings
from postbud.httpd.strict_json import BadJson, parse
from postbud.mime.line_ends import BareLineEnd, LineEnds
from postbud.model.content import Content
from postbud.model.envelope import Client
from postbud.model.refusal import Refusal, Why
from postbud.model.text import printable
from postbud.spool.content import ContentWriter
from postbud.submission.accept import SubmissionGate
from postbud.submission.authenticate import Identity
from postbud.telemetry.logs import Log

_LARGE_OCTETS = 128 * 1024  # a larger body is read by a thread
_MAX_KEY = 255
_MAX_QUERY_FIELDS = 2_000
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_RAW_LINE_ENDS = "a bare CR or LF stands in the content; its lines end in CRLF, or all of them in LF"


class Api:
    """The ASGI application of one worker."""

    def __init__(
        self,
        settings: ApiSettings,
        gate: SubmissionGate,
        doorkeeper: Doorkeeper,
        desk: Desk,
        lookup: Lookup,
        counters: ApiCounters,
        log: Log,
        clock: Callable[[], datetime],
    ) -> None:
        """`clock` gives aware UTC time."""
        self._settings = settings
        self._gate = gate
        self._doorkeeper = doorkeeper
        self._desk = desk
        self._lookup = lookup
        self._counters = counters
        self._log = log
        self._clock = clock
        self._bodies = Bodies(settings.bodies_octets)
        self._described = msgspec.json.encode(describe(settings))
        self._router = Router(
            [
                Route("/v1/messages", self._create, methods=["POST"]),  # first, for nearly all requests are this
                Route("/v1/messages/{message}", self._message, methods=["GET", "DELETE"]),
                Route("/v1", self._index, methods=["GET"]),
                Route("/v1/openapi.json", self._openapi, methods=["GET"]),
                Route("/v1/problems/{code}", self._problem, methods=["GET"]),
            ],
            redirect_slashes=False,
        )

    # -- the front ---------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._counters.requests += 1
        begun = False

        async def sending(message: AsgiMessage) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            self._refuse_ambiguity(scope)
            scope["app"] = self._router  # has Starlette raise what it would else answer itself
            await self._router(scope, receive, sending)
            return
        except ClientGone:
            return
        except Problem as found:
            no = found
        except Refusal as refusal:
            self._counters.refusals[refusal.why] += 1
            no = problem_of(refusal)
            self._say_refused(scope, no, refusal.private)
        except HTTPException as error:
            code = Code.METHOD_NOT_ALLOWED if error.status_code == 405 else Code.NOT_FOUND
            no = problem(code, "see GET /v1 for what there is", headers=dict(error.headers or {}))
        except Exception:  # noqa: BLE001 (the one handler of this loop: logged with its traceback)
            self._counters.faults += 1
            self._log.exception("api_fault", **self._fields(scope))
            no = problem_of(Refusal(Why.TEMPORARY, "Trouble on our side, try again later"))
        if not begun:
            await self._say(no, scope, receive, send)

    def _refuse_ambiguity(self, scope: Scope) -> None:
        names = [name for name, _ in scope["headers"]]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise problem(Code.BAD_REQUEST, "Content-Length and Transfer-Encoding say two things", close=True)
        refuse_key_in_address(scope["raw_path"], scope["query_string"])

    async def _say(self, no: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        self._counters.timeouts += no.status == 408
        headers = _HEADERS | no.headers | ({"connection": "close"} if no.close else {})
        response = Response(b"" if scope["method"] == "HEAD" else no.body, no.status, headers, CONTENT_TYPE)
        await response(scope, receive, send)

    def _say_refused(self, scope: Scope, no: Problem, private: str) -> None:
        self._log.info(
            "api_refused", code=no.code, public=printable(no.detail), private=printable(private), **self._fields(scope)
        )

    def _fields(self, scope: Scope) -> dict[str, Any]:
        return {"listener": self._settings.name, "client": address_of(scope, self._settings.trusted_proxies)}

    # -- what needs no key -------------------------------------------------------------------------------------------------

    async def _index(self, _: Request) -> Response:
        return _json(
            {
                "name": "Postbud sending API",
                "messages": "/v1/messages",
                "openapi": "/v1/openapi.json",
                "problems": {code: f"/v1/problems/{code}" for code in sorted(catalogue())},
            }
        )

    async def _openapi(self, _: Request) -> Response:
        return Response(self._described, 200, _HEADERS, "application/json")

    async def _problem(self, request: Request) -> Response:
        code = request.path_params["code"]
        found = catalogue().get(code)
        if found is None:
            raise problem(Code.NOT_FOUND, "there is no such code; GET /v1 lists them")
        return _json({"code": code, "status": found[0], "title": found[1]})

    # -- messages ----------------------------------------------------------------------------------------------------------

    def _identify(self, request: Request) -> tuple[Identity, str]:
        address = address_of(request.scope, self._settings.trusted_proxies)
        return self._doorkeeper.identify(request.scope["headers"], address), address

    async def _message(self, request: Request) -> Response:
        identity, _ = self._identify(request)
        message = request.path_params["message"]
        if request.method == "DELETE":
            return _json(await self._lookup.cancel(identity, message))
        return _json(await self._lookup.show(identity, message))

    async def _create(self, request: Request) -> Response:
        identity, address = self._identify(request)
        self._gate.check(identity)
        headers = request.scope["headers"]
        key = _idempotency_key(header(headers, b"idempotency-key"))
        kind = media_type(headers)
        if kind == "application/json":
            if request.scope["query_string"]:
                raise problem(Code.BAD_REQUEST, "a JSON request has no query")
            reading = self._read_json(request, keyed=bool(key))
        elif kind == "message/rfc822":
            reading = self._read_raw(request)
        else:
            raise problem(Code.UNSUPPORTED_MEDIA_TYPE, "send application/json or message/rfc822", close=True)
        async with reading as (order, content, digest):
            parcel = Parcel(
                identity=identity,
                client=self._client(request, address),
                reverse_path=order.reverse_path,
                recipients=order.recipients,
                places=order.places,
                smtputf8=order.smtputf8,
                header=content.header,
                body=content.body if isinstance(content.body, bytes) else b"",
                body_file="" if isinstance(content.body, bytes) else str(content.body),
                facts=content.facts,
                said=order.said,
                key=key_of(identity.server, key) if key else b"",
                request=digest,
            )
            taken, replayed = await self._desk.take(parcel)
        more = {"location": f"/v1/messages/{taken.id}"} | ({"idempotency-replayed": "true"} if replayed else {})
        return _json(taken, 202, more)

    def _client(self, request: Request, address: str) -> Client:
        scope = request.scope
        secure = scope["scheme"] == "https"
        port = scope["client"][1] if scope.get("client") else 0
        tls = scope.get("state", {}).get("tls")
        return Client(address, port, "", self._settings.name, "HTTPS" if secure else "HTTP", tls, self._clock())

    @asynccontextmanager
    async def _read_json(self, request: Request, *, keyed: bool) -> AsyncIterator[tuple[Order, Content, bytes]]:
        """Read a JSON body into an order and its content; the content goes when nobody committed it."""
        limit = self._settings.json_limit_octets
        octets = await whole(request.scope["headers"], request.receive, self._settings, limit, self._bodies)
        writer: ContentWriter | None = None
        try:
            if len(octets) > _LARGE_OCTETS:
                order, written = await asyncio.to_thread(self._written, octets)
            else:
                order, written = self._written(octets)
            digest = hashlib.sha256(b"json\0" + octets).digest() if keyed else b""
            self._bodies.give_back(len(octets))
            octets = b""
            writer = self._gate.open_content()
            writer.write(written)
            yield order, await writer.finish(), digest
        finally:
            self._bodies.give_back(len(octets))
            if writer is not None:
                writer.discard()

    def _written(self, octets: bytes) -> tuple[Order, bytes]:
        """Give the order of a JSON body, and its content before the gate's fix-ups."""
        try:
            order = read_order(parse(octets), self._clock())
        except BadJson as error:
            raise problem(Code.INVALID_JSON, str(error)) from error
        if order.raw is None:
            head, body = compose_content(order, secrets.token_hex)
            return order, b"%b\r\n%b" % (head, body)
        ends = LineEnds()
        try:
            return order, ends.feed(order.raw) + ends.end()
        except BareLineEnd as error:
            raise problem_of(Refusal(Why.BAD_LINE_ENDS, _RAW_LINE_ENDS), [FieldError("raw", _RAW_LINE_ENDS)]) from error

    @asynccontextmanager
    async def _read_raw(self, request: Request) -> AsyncIterator[tuple[Order, Content, bytes]]:
        """Read the envelope from the address and the content from the body, as it comes."""
        query = request.scope["query_string"]
        order = _envelope(query, self._clock())
        ends, digest = LineEnds(), hashlib.sha256(b"raw\0" + query + b"\0")
        settings = self._settings
        writer = self._gate.open_content()
        try:
            async for piece in chunks(request.scope["headers"], request.receive, settings, settings.size_limit_octets):
                digest.update(piece)
                writer.write(ends.feed(piece))
                if writer.needs_drain:
                    await writer.drain()
            writer.write(ends.end())
            yield order, await writer.finish(), digest.digest()
        except BareLineEnd as error:
            raise problem_of(Refusal(Why.BAD_LINE_ENDS, _RAW_LINE_ENDS)) from error
        finally:
            writer.discard()


def _idempotency_key(said: bytes | None) -> str:
    if said is None:
        return ""
    text = said.decode("latin-1").strip()
    if not text or len(text) > _MAX_KEY or not (text.isascii() and text.isprintable()):
        raise problem(Code.BAD_REQUEST, f"an Idempotency-Key has 1 to {_MAX_KEY} printable ASCII characters")
    return text


def _envelope(query: bytes, now: datetime) -> Order:
    try:
        fields = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict",
            max_num_fields=_MAX_QUERY_FIELDS,
        )  # fmt: skip
    except (UnicodeDecodeError, ValueError) as error:
        raise problem(Code.BAD_REQUEST, "the query is malformed") from error
    unknown = [FieldError(name[:40], "is no field of this request") for name, _ in fields if name not in {"from", "to"}]
    if unknown:
        refuse_fields(unknown, Code.UNKNOWN_FIELD)
    senders = [value for name, value in fields if name == "from"]
    if len(senders) != 1:
        refuse_fields([FieldError("from", "stands once in the query of a raw message: ?from=you@example&to=…")])
    return read_envelope(senders[0], [value for name, value in fields if name == "to"], now)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, _HEADERS | (headers or {}), "application/json")
