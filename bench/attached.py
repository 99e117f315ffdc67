"""What a console costs the relay: the same load on a relay alone and on `postbud serve`, in turns, on the same cores.

Run: python -m bench.attached [--messages 6000] [--rounds 3] [--postgres]

4 KiB, 50 sessions with AUTH that stay open, signed with two keys, delivered to smtp-sink; two workers each. The rate is from
the first MAIL to the last message at the sink; `console` is when the message log had the last delivery too.
"""

import argparse
import asyncio
import base64
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from bench.load import Sink, sink
from tests.console.postgres import Postgres
from tests.system.directory import SECRETS, Settings
from tests.system.harness import Relay
from tests.system.product import Product

CONNECTIONS = 50
WARM_UP = 500
_LINE = "A line of an ordinary message, as programs send them all day long.\r\n"
_CONTENT = (
    "From: Ann <printer@acme.example>\r\nTo: you@dest.example\r\nSubject: Order 4711\r\n"
    "Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <benchmark@acme.example>\r\n\r\n" + _LINE * (4096 // len(_LINE))
).encode()


async def _session(port: int, username: str, secret: str, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    token = base64.b64encode(f"\0{username}\0{secret}".encode()).decode()
    for line in ("", "EHLO bench.example\r\n", f"AUTH PLAIN {token}\r\n"):
        writer.write(line.encode())
        while (await reader.readline())[3:4] == b"-":
            pass
    for _ in range(count):
        writer.write(b"MAIL FROM:<printer@acme.example>\r\nRCPT TO:<you@dest.example>\r\nDATA\r\n")
        for _ in range(3):
            await reader.readline()
        writer.write(_CONTENT + b".\r\n")
        line = await reader.readline()
        if not line.startswith(b"250"):
            raise RuntimeError(line)
    writer.close()


def submit(port: int, username: str, secret: str, messages: int) -> None:
    """Send messages; return with the last 250."""

    async def every() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(_session(port, username, secret, messages // CONNECTIONS))

    uvloop.run(every())


@contextlib.contextmanager
def alone(folder: Path, next_hop: Sink) -> Iterator[tuple[int, str, str, None]]:
    """A relay with a directory file."""
    relay = Relay(folder / "relay", Settings(workers=2, next_hop=f"127.0.0.1:{next_hop.port}"))
    try:
        relay.start()
        yield relay.ports["cleartext"], "printer-1", SECRETS["printer-1"], None
    finally:
        relay.close()


@contextlib.contextmanager
def attached(folder: Path, next_hop: Sink, database: str = "") -> Iterator[tuple[int, str, str, Product]]:
    """Everything, as `postbud serve --demo` runs it."""
    product = Product(folder / "demo", next_hop=f"127.0.0.1:{next_hop.port}", database=database)
    try:
        product.start()
        server = product.server()
        yield product.ports["cleartext"], server["username"], server["secret"], product
    finally:
        product.close()


Party = contextlib.AbstractContextManager[tuple[int, str, str, Product | None]]


def measure(party: Party, next_hop: Sink, messages: int) -> dict[str, float]:
    """Give the rate, and how long the console took for the rest."""
    before = next_hop.read()
    with party as (port, username, secret, product):
        submit(port, username, secret, WARM_UP)
        next_hop.wait_for(before + WARM_UP, 120)
        if product is not None:
            _wait_log(product, WARM_UP)
        begun = time.monotonic()
        submit(port, username, secret, messages)
        accepted = time.monotonic() - begun
        done = next_hop.wait_for(before + WARM_UP + messages, 300) - begun
        found = {"rate": messages / done, "accepted": messages / accepted}
        if product is not None:
            _wait_log(product, WARM_UP + messages)
            found["console"] = messages / (time.monotonic() - begun)
        return found


def _wait_log(product: Product, messages: int) -> None:
    deadline = time.monotonic() + 300
    counted = "SELECT count(*) AS n FROM mail_delivery WHERE state = 'delivered'"
    while product.rows(counted)[0]["n"] < messages:
        if time.monotonic() > deadline:
            raise TimeoutError("the console did not get all")
        time.sleep(0.05)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", action="store_true")
    words = parser.parse_args()
    rates: dict[str, list[float]] = {}
    postgres = Postgres(()) if words.postgres else None
    if postgres is not None:
        postgres.start()
    try:
        for number in range(words.rounds):
            with sink() as next_hop:
                for name in ("alone", "attached") if number % 2 == 0 else ("attached", "alone"):
                    with tempfile.TemporaryDirectory(prefix="attached-") as folder:
                        database = ""
                        if postgres is not None and name == "attached":
                            postgres.create(f"bench_{number}")
                            database = postgres.url(f"bench_{number}")
                        party = alone(Path(folder), next_hop) if name == "alone" else attached(Path(folder), next_hop, database)
                        found = measure(party, next_hop, words.messages)
                    rates.setdefault(name, []).append(found["rate"])
                    print(f"{name:10} " + "  ".join(f"{key} {value:,.0f}/s" for key, value in found.items()), flush=True)
    finally:
        if postgres is not None:
            postgres.stop()
    ratios = [one / other for one, other in zip(rates["attached"], rates["alone"], strict=True)]
    print(f"attached / alone: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
