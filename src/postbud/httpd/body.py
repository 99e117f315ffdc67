"""The body of a request as it comes in: bounded in size, in time, and in what all bodies together take of memory (input I4).

Content codings are refused: a body of a kilobyte must not become a gigabyte here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from postbud.httpd.caller import Headers, header
from postbud.httpd.problem import Code, Problem, problem, problem_of
from postbud.httpd.settings import ApiSettings
from postbud.model.refusal import Refusal, Why

Receive = Callable[[], Awaitable[Any]]


class ClientGone(Exception):  # noqa: N818 (names what happened)
    """The client closed the connection before its request was whole: nobody waits for an answer."""


class Bodies:
    """What bodies that are kept in memory take now."""

    def __init__(self, limit_octets: int) -> None:
        self._limit = limit_octets
        self._used = 0

    def take(self, octets: int) -> None:
        """Count octets in.

        Raises:
            Refusal: TEMPORARY, when too much is being received.
        """
        if self._used + octets > self._limit:
            raise Refusal(Why.TEMPORARY, "Too busy, try again later", "too many octets of bodies are in memory")
        self._used += octets

    def give_back(self, octets: int) -> None:
        """Count octets out."""
        self._used -= octets


def media_type(headers: Headers) -> str:
    """Give the media type of a body, lower case, without parameters.

    Raises:
        Problem: UNSUPPORTED_MEDIA_TYPE, when it is coded (gzip and its like), or names another charset than UTF-8.
    """
    coding = header(headers, b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise problem(Code.UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding", close=True)
    said = (header(headers, b"content-type") or b"").decode("latin-1").lower()
    kind, _, parameters = said.partition(";")
    if "charset" in parameters and "utf-8" not in parameters and kind.strip() == "application/json":
        raise problem(Code.UNSUPPORTED_MEDIA_TYPE, "JSON is UTF-8", close=True)
    return kind.strip()


async def chunks(headers: Headers, receive: Receive, settings: ApiSettings, limit_octets: int) -> AsyncIterator[bytes]:
    """Give a body piece by piece.

    Raises:
        Problem: 413 beyond the limit, 408 when it pauses or trickles.
        ClientGone: It ended before its end.
    """
    declared = header(headers, b"content-length")
    if declared is not None and int(declared) > limit_octets:
        raise _too_big(limit_octets)
    loop = asyncio.get_running_loop()
    begun, received = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout(settings.body_pause_seconds):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        octets: bytes = message.get("body", b"")
        received += len(octets)
        if received > limit_octets:
            raise _too_big(limit_octets)
        if octets:
            yield octets
        if not message.get("more_body"):
            return
        late = loop.time() - begun - settings.body_pause_seconds
        if late > 0 and received < late * settings.body_octets_per_second:
            raise _too_slow()


async def whole(headers: Headers, receive: Receive, settings: ApiSettings, limit_octets: int, bodies: Bodies) -> bytes:
    """Give a body in one piece. The caller gives its length back to `bodies`, unless this raises.

    Raises:
        Problem, ClientGone: As `chunks`.
        Refusal: TEMPORARY, when bodies take too much memory.
    """
    pieces: list[bytes] = []
    taken = 0
    try:
        async for piece in chunks(headers, receive, settings, limit_octets):
            bodies.take(len(piece))
            taken += len(piece)
            pieces.append(piece)
    except BaseException as error:
        bodies.give_back(taken)
        if isinstance(error, Refusal):
            raise _closing(problem_of(error)) from error
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_big(limit_octets: int) -> Problem:
    no = Refusal(Why.TOO_BIG, f"the body is larger than {limit_octets} octets")
    return _closing(problem_of(no))


def _too_slow() -> Problem:
    return problem(Code.TIMEOUT, "the body did not come in time", close=True)


def _closing(no: Problem) -> Problem:
    """Have the connection ended: what is left of the body is not read."""
    no.close = True
    return no
