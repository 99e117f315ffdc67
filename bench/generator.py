"""Load B: submission as programs do it, with STARTTLS and AUTH PLAIN, ten messages a session; rates and latencies.

*Closed loop*: sessions send as fast as they hear 250; gives the most that a server takes. *Open loop*: messages become due at
a given rate, at random (Poisson), whether the server keeps up or not; a latency runs from the instant a message is due to its
250, so waiting for a free session counts. Sessions are opened beforehand, outside the latencies.
"""

import asyncio
import base64
import random
import ssl
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field

import uvloop
from bench.load import SESSIONS, WARM_UP, sink
from bench.parties import SECRET, USERNAME, Party, running

MESSAGES_PER_SESSION = 10
_ENVELOPE = b"MAIL FROM:<printer@acme.example>\r\nRCPT TO:<you@dest.example>\r\nDATA\r\n"
_HEADER = (
    b"From: Printer <printer@acme.example>\r\nTo: you@dest.example\r\nSubject: Scan\r\n"
    b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <benchmark@acme.example>\r\n\r\n"
)
_LINE = b"A line of an ordinary message, as devices send them all day long.\r\n"


class _Session:
    """One connection, logged in."""

    def __init__(self, port: int, content: bytes, tls: ssl.SSLContext) -> None:
        self._port, self._content, self._tls = port, content, tls
        self._left = 0

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        await self._reply(b"220")
        await self._say(b"EHLO client.example\r\n", b"250")
        await self._say(b"STARTTLS\r\n", b"220")
        await self._writer.start_tls(self._tls, server_hostname="relay.example")
        await self._say(b"EHLO client.example\r\n", b"250")
        token = base64.b64encode(f"\0{USERNAME}\0{SECRET}".encode())
        await self._say(b"AUTH PLAIN " + token + b"\r\n", b"235")
        self._left = MESSAGES_PER_SESSION

    async def send(self) -> None:
        """Send one message; returns at its 250."""
        self._writer.write(_ENVELOPE)
        for code in (b"250", b"250", b"354"):
            await self._reply(code)
        await self._say(self._content, b"250")

    async def rest(self) -> None:
        """Be ready for another message."""
        self._left -= 1
        if self._left == 0:
            await self.quit()
            await self.open()

    async def quit(self) -> None:
        self._writer.write(b"QUIT\r\n")
        self._writer.close()

    async def _say(self, line: bytes, code: bytes) -> None:
        self._writer.write(line)
        await self._reply(code)

    async def _reply(self, code: bytes) -> None:
        while (line := await self._reader.readline())[3:4] == b"-":
            pass
        if line[:3] != code:
            raise RuntimeError(f"{code.decode()} was expected, the server said {line!r}")


@dataclass
class _Load:
    port: int
    octets: int
    latencies: list[float] = field(default_factory=list)

    async def sessions(self) -> list[_Session]:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        content = _HEADER + _LINE * ((self.octets - len(_HEADER)) // len(_LINE)) + b".\r\n"
        sessions = [_Session(self.port, content, tls) for _ in range(SESSIONS)]
        for session in sessions:
            await session.open()
        return sessions

    async def closed(self, messages: int) -> float:
        """Give messages a second."""
        sessions, left = await self.sessions(), messages
        begun = time.monotonic()

        async def run(session: _Session) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await session.send()
                await session.rest()

        await _together(run(session) for session in sessions)
        return messages / (time.monotonic() - begun)

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Fill `latencies`."""
        free: asyncio.Queue[_Session] = asyncio.Queue()
        for session in await self.sessions():
            free.put_nowait(session)
        dice, begun, due_at = random.Random(1), time.monotonic(), 0.0

        async def send(due: float) -> None:
            session = await free.get()
            await session.send()
            self.latencies.append(time.monotonic() - due)
            await session.rest()
            free.put_nowait(session)

        async with asyncio.TaskGroup() as tasks:
            while (due_at := due_at + dice.expovariate(rate)) < seconds:
                await asyncio.sleep(max(0.0, begun + due_at - time.monotonic()))
                tasks.create_task(send(begun + due_at))


async def _together(runs: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for run in runs:
            tasks.create_task(run)


def most(party: Party, messages: int, octets: int) -> dict[str, float]:
    """Give the most messages a second that a party takes in closed loop, while it delivers."""
    with sink() as next_hop, running(party, next_hop.port) as one:
        uvloop.run(_Load(one.auth_port, octets).closed(WARM_UP))
        next_hop.wait_for(WARM_UP, 120)
        return {"rate": uvloop.run(_Load(one.auth_port, octets).closed(messages))}


def latencies(party: Party, rate: float, seconds: float, octets: int) -> dict[str, float]:
    """Give percentiles of the time to 250 at a rate, in milliseconds, while it delivers."""
    with sink() as next_hop, running(party, next_hop.port) as one:
        uvloop.run(_Load(one.auth_port, octets).closed(WARM_UP))
        next_hop.wait_for(WARM_UP, 120)
        load = _Load(one.auth_port, octets)
        uvloop.run(load.open_loop(rate, seconds))
        ordered = sorted(load.latencies)
        points = {f"p{point}": ordered[min(len(ordered) - 1, len(ordered) * point // 100)] * 1e3 for point in (50, 95, 99)}
        return points | {"rate": rate, "messages": float(len(ordered))}
