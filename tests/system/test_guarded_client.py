"""The guarded client against real servers on loopback, with a scripted resolver."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from postbud.net.dns import Resolver, ResolverSettings
from postbud.net.guard import Guard
from postbud.net.guarded import MAX_ANSWER_OCTETS, GuardedClient, NotReached, UrlRefused
from tests.system.dns_stub import DnsStub, Zone

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = Guard(allowed=["127.0.0.0/8"])


class Peer:
    """An HTTP server that answers octets as told, and remembers what it heard."""

    def __init__(self, answer: bytes | Handler) -> None:
        self.answer, self.heard, self.port = answer, list[bytes](), 0

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heard.append(head)
            if callable(self.answer):
                await self.answer(reader, writer)
            else:
                writer.write(self.answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(status: str, body: bytes = b"", *fields: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture
async def resolve() -> AsyncIterator[Callable[[Zone], Awaitable[Resolver]]]:
    stubs: list[DnsStub] = []

    async def make(zone: Zone) -> Resolver:
        stub = await DnsStub(zone).__aenter__()
        stubs.append(stub)
        return Resolver(ResolverSettings(nameservers=(("127.0.0.1", stub.port),)), time.monotonic)

    yield make
    for stub in stubs:
        await stub.__aexit__()


async def test_a_post_reaches_the_peer_with_its_name_in_host(resolve: Callable[[Zone], Awaitable[Resolver]]) -> None:
    async with Peer(answer("204 No Content")) as peer:
        resolver = await resolve({("hooks.customer.example", "A"): ["127.0.0.1"]})
        async with GuardedClient(resolver, LOOPBACK, ports=[peer.port]) as client:
            got = await client.post(f"http://hooks.customer.example:{peer.port}/in?a=1", {"webhook-id": "m1"}, b"{}")
    assert (got.status, got.body, got.whole) == (204, b"", True)
    head = peer.heard[0].decode()
    assert head.startswith("POST /in?a=1 HTTP/1.1\r\n")
    assert f"Host: hooks.customer.example:{peer.port}\r\n" in head
    assert "webhook-id: m1\r\n" in head


@pytest.mark.row("J4", "J5")
@pytest.mark.parametrize("records", [["127.0.0.1"], ["10.1.2.3", "127.0.0.1"], ["169.254.169.254"]])
async def test_a_name_that_leads_inside_is_not_dialled(
    resolve: Callable[[Zone], Awaitable[Resolver]], records: list[str]
) -> None:
    async with Peer(answer("200 OK")) as peer:
        resolver = await resolve({("hooks.customer.example", "A"): records})
        async with GuardedClient(resolver, Guard(), ports=[peer.port]) as client:
            with pytest.raises(NotReached, match="no address on the public internet"):
                await client.post(f"http://hooks.customer.example:{peer.port}/", {}, b"{}")
    assert peer.heard == []


@pytest.mark.row("J5")
async def test_a_name_that_is_bound_anew_is_judged_at_each_dial(resolve: Callable[[Zone], Awaitable[Resolver]]) -> None:
    zone: Zone = {("hooks.customer.example", "A"): ["127.0.0.2"]}
    guard = Guard(allowed=["127.0.0.2/32"])
    async with Peer(answer("200 OK")) as peer:
        resolver = await resolve(zone)
        async with GuardedClient(resolver, guard, ports=[peer.port]) as client:
            with pytest.raises(NotReached):  # nobody listens on 127.0.0.2, but it may be dialled
                await client.post(f"http://hooks.customer.example:{peer.port}/", {}, b"{}")
            zone["hooks.customer.example", "A"] = ["127.0.0.1"]
            resolver._cache.clear()
            with pytest.raises(NotReached, match="no address"):
                await client.post(f"http://hooks.customer.example:{peer.port}/", {}, b"{}")
    assert peer.heard == []


@pytest.mark.row("J5")
async def test_a_redirect_is_an_answer_and_nothing_is_followed(
    resolve: Callable[[Zone], Awaitable[Resolver]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    redirect = answer("302 Found", b"", "Location: http://127.0.0.1:1/")
    async with Peer(redirect) as peer, GuardedClient(await resolve({}), LOOPBACK, ports=[peer.port]) as client:
        got = await client.post(f"http://127.0.0.1:{peer.port}/", {}, b"{}")
    assert got.status == 302
    assert len(peer.heard) == 1


@pytest.mark.row("J6")
async def test_an_endless_answer_is_cut(resolve: Callable[[Zone], Awaitable[Resolver]]) -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            await writer.drain()

    async with Peer(endless) as peer, GuardedClient(await resolve({}), LOOPBACK, ports=[peer.port]) as client:
        got = await client.post(f"http://127.0.0.1:{peer.port}/", {}, b"{}")
    assert (got.status, len(got.body), got.whole) == (200, MAX_ANSWER_OCTETS, False)


@pytest.mark.row("J6")
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_a_slow_answer_ends_in_time(resolve: Callable[[Zone], Awaitable[Resolver]], first: bytes) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await reader.read()

    async with Peer(slow) as peer, GuardedClient(await resolve({}), LOOPBACK, ports=[peer.port]) as client:
        with pytest.raises(NotReached, match="no whole answer"):
            await client.post(f"http://127.0.0.1:{peer.port}/", {}, b"", seconds=0.3)


@pytest.mark.parametrize("octets", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"\x00" * 100])
async def test_an_answer_that_is_no_http_says_so(resolve: Callable[[Zone], Awaitable[Resolver]], octets: bytes) -> None:
    async with Peer(octets) as peer, GuardedClient(await resolve({}), LOOPBACK, ports=[peer.port]) as client:
        with pytest.raises(NotReached):
            await client.post(f"http://127.0.0.1:{peer.port}/", {}, b"{}")


async def test_a_url_is_judged_again_at_each_post(resolve: Callable[[Zone], Awaitable[Resolver]]) -> None:
    async with GuardedClient(await resolve({}), Guard()) as client:
        with pytest.raises(UrlRefused):
            await client.post("http://127.0.0.1/", {}, b"{}")


async def test_trouble_of_name_servers_is_told_as_that(resolve: Callable[[Zone], Awaitable[Resolver]]) -> None:
    async with GuardedClient(await resolve({("hooks.customer.example", "A"): "SERVFAIL"}), Guard()) as client:
        with pytest.raises(NotReached, match="name servers fail"):
            await client.post("http://hooks.customer.example/", {}, b"{}")
