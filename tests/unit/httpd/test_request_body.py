"""Bodies are bounded: in octets, in time, and in memory together."""

import asyncio
from typing import Any

import pytest

from postbud.httpd.body import Bodies, ClientGone, media_type, whole
from postbud.httpd.problem import Problem
from postbud.httpd.settings import ApiSettings
from postbud.model.refusal import Refusal

SETTINGS = ApiSettings("127.0.0.1:1", "relay.example", body_pause_seconds=0.05, body_octets_per_second=1000)


class Said:
    """A client: octets in pieces, each after a wait; then nothing more, or the end of the connection."""

    def __init__(self, *pieces: bytes, wait: float = 0.0, end: str = "whole") -> None:
        self._pieces = list(pieces)
        self._wait = wait
        self._end = end

    async def __call__(self) -> dict[str, Any]:
        await asyncio.sleep(self._wait)
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._end != "whole"}
        if self._end == "gone":
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError


async def read(said: Said, *, limit: int = 100, bodies: Bodies | None = None, length: bytes | None = None) -> bytes:
    headers = [(b"content-length", length)] if length is not None else []
    return await whole(headers, said, SETTINGS, limit, bodies or Bodies(1000))


async def test_a_body_in_pieces_is_one() -> None:
    assert await read(Said(b"ab", b"", b"cd")) == b"abcd"
    assert await read(Said(b"")) == b""


@pytest.mark.row("I4")
async def test_a_body_over_the_limit_ends_the_connection_whatever_it_declared() -> None:
    for said, length in ((Said(b"x" * 101), None), (Said(b"x" * 60, b"x" * 60), None), (Said(), b"101")):
        with pytest.raises(Problem) as raised:
            await read(said, length=length)
        assert (raised.value.status, raised.value.close) == (413, True)


@pytest.mark.row("I4")
async def test_a_body_that_pauses_or_trickles_is_ended() -> None:
    for said in (Said(b"x", end="never"), Said(*[b"x"] * 50, wait=0.02)):
        with pytest.raises(Problem) as raised:
            await read(said)
        assert (raised.value.status, raised.value.close) == (408, True)


async def test_a_client_that_goes_is_nobodys_fault() -> None:
    with pytest.raises(ClientGone):
        await read(Said(b"x", end="gone"))


async def test_bodies_share_one_bound_and_give_back_what_they_took() -> None:
    bodies = Bodies(150)
    assert await read(Said(b"x" * 100), bodies=bodies)
    with pytest.raises(Problem) as raised:
        await read(Said(b"x" * 40, b"x" * 40), bodies=bodies)
    assert (raised.value.status, raised.value.close) == (503, True)
    bodies.give_back(100)
    assert await read(Said(b"x" * 90), bodies=bodies)
    with pytest.raises(Refusal):
        bodies.take(61)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([(b"content-type", b"Application/JSON; charset=UTF-8")], "application/json"),
        ([(b"content-type", b"message/rfc822"), (b"content-encoding", b"identity")], "message/rfc822"),
        ([], ""),
    ],
)
def test_the_type_of_a_body_is_told(headers: list[tuple[bytes, bytes]], kind: str) -> None:
    assert media_type(headers) == kind


@pytest.mark.row("I4")
@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-encoding", b"gzip")],
        [(b"content-encoding", b"br, identity")],
        [(b"content-type", b"application/json; charset=utf-16")],
    ],
)
def test_a_coded_body_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Problem) as raised:
        media_type(headers)
    assert raised.value.status == 415
