"""The sending API beside SMTP: messages a second until the 202 and until the 250, on one worker, in turns.

Run: python -m bench.api [--messages 4000] [--rounds 3] [--only MODE --perf FILE]

4 KiB each, 50 connections that stay open, next hop closed, the same client program for all. SMTP: AUTH once, then MAIL, RCPT
and DATA in one write (PIPELINING). API: one POST a message, JSON in parts or a whole message; with and without Idempotency-Key.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from tests.ports import free_port
from tests.system.directory import KEYS, SECRETS, Settings
from tests.system.harness import Relay

CONNECTIONS = 50
WARM_UP = 500
_LINE = "A line of an ordinary message, as programs send them all day long.\n"
_TEXT = _LINE * (4096 // len(_LINE))
_RAW = (
    "From: Ann <printer@acme.example>\r\nTo: you@dest.example\r\nSubject: Order 4711\r\n"
    "Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <benchmark@acme.example>\r\n\r\n" + _TEXT.replace("\n", "\r\n")
).encode()
_JSON = json.dumps(
    {"from": "Ann <printer@acme.example>", "to": ["you@dest.example"], "subject": "Order 4711", "text": _TEXT, "tag": "order"}
).encode()

Send = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


async def _smtp_begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    token = base64.b64encode(f"\0printer-1\0{SECRETS['printer-1']}".encode()).decode()
    for line in ("", "EHLO bench.example\r\n", f"AUTH PLAIN {token}\r\n"):
        writer.write(line.encode())
        while (await reader.readline())[3:4] == b"-":
            pass


async def _smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
    writer.write(b"MAIL FROM:<printer@acme.example>\r\nRCPT TO:<you@dest.example>\r\nDATA\r\n")
    for _ in range(3):
        await reader.readline()
    writer.write(_RAW + b".\r\n")
    line = await reader.readline()
    if not line.startswith(b"250"):
        raise RuntimeError(line)


async def _http_begin(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    return


def _http(body: bytes, kind: str, query: str = "", *, keys: bool = False) -> Send:
    head = (
        f"POST /v1/messages{query} HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {KEYS['api-1']}\r\n"
        f"Content-Type: {kind}\r\nUser-Agent: bench\r\nContent-Length: {len(body)}\r\n"
    ).encode()
    run = os.urandom(6).hex()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        key = f"Idempotency-Key: {run}-{number}\r\n".encode() if keys else b""
        writer.write(b"%b%b\r\n%b" % (head, key, body))
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(answer)
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))

    return send


async def _rate(port: int, begin: Callable[..., Awaitable[None]], send: Send, messages: int) -> float:
    left = messages

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await send(reader, writer, left)

    pairs = [await asyncio.open_connection("127.0.0.1", port, limit=1 << 20) for _ in range(CONNECTIONS)]
    for reader, writer in pairs:
        await begin(reader, writer)
    begun = time.monotonic()
    await asyncio.gather(*(run(*pair) for pair in pairs))
    seconds = time.monotonic() - begun
    for _, writer in pairs:
        writer.close()
    return messages / seconds


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="one of the modes, for profiling")
    parser.add_argument("--perf", default="", help="a file for `perf record` of the worker")
    arguments = parser.parse_args()
    modes: dict[str, tuple[Callable[..., Awaitable[None]], Callable[[], Send]]] = {
        "SMTP": (_smtp_begin, lambda: _smtp),
        "API, JSON": (_http_begin, lambda: _http(_JSON, "application/json")),
        "API, JSON, Idempotency-Key": (_http_begin, lambda: _http(_JSON, "application/json", keys=True)),
        "API, whole message": (
            _http_begin,
            lambda: _http(_RAW, "message/rfc822", "?from=printer@acme.example&to=you@dest.example"),
        ),
    }
    if arguments.only:
        modes = {name: mode for name, mode in modes.items() if name in {"SMTP", arguments.only}}
    rates: dict[str, list[float]] = {name: [] for name in modes}
    with tempfile.TemporaryDirectory() as folder:
        api_port = free_port()
        extra = f'log_level = "warning"\n[api]\naddress = "127.0.0.1:{api_port}"\n'
        settings = Settings(workers=1, next_hop=f"127.0.0.1:{free_port()}", extra=extra, relay={"retry_first_seconds": 3600})
        relay = Relay(Path(folder), settings)
        try:
            relay.start()
            for begin, make in modes.values():
                port = relay.ports["cleartext"] if begin is _smtp_begin else api_port
                uvloop.run(_rate(port, begin, make(), WARM_UP))
            for number in range(arguments.rounds):
                order = list(modes.items())
                for name, (begin, make) in order[number % len(order) :] + order[: number % len(order)]:
                    port = relay.ports["cleartext"] if begin is _smtp_begin else api_port
                    watch = None
                    if arguments.perf and name == arguments.only:
                        words = ["perf", "record", "-F", "499", "-g", "-o", arguments.perf, "-p", str(relay.workers()[0])]
                        watch = subprocess.Popen(words, stderr=subprocess.DEVNULL)
                    rates[name].append(uvloop.run(_rate(port, begin, make(), arguments.messages)))
                    if watch is not None:
                        watch.terminate()
                        watch.wait()
        finally:
            relay.close()
    base = statistics.median(rates["SMTP"])
    print("| 4 KiB, 50 connections, one worker | min | median | max | to SMTP |\n| --- | ---: | ---: | ---: | ---: |")
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"| {name} | {min(found):,.0f} | {median:,.0f} | {max(found):,.0f} | {median / base:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
