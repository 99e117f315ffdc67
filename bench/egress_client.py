"""What one delivery costs on a reused connection: microseconds of our own CPU and of wall time, against Postfix's smtp-sink.

Run: .venv/bin/python bench/egress_client.py [messages]
"""

import asyncio
import random
import subprocess
import sys
import time

import uvloop
from tests.ports import free_port

from postbud.egress.client import Connection
from postbud.egress.egress import Egress
from postbud.egress.settings import EgressSettings, RouteSettings, SiteLimits, TlsMode
from postbud.egress.transaction import RecipientLine, Transaction
from postbud.model.outcome import Delivered


async def run(port: int, messages: int) -> None:
    limits = SiteLimits(messages_per_connection=10_000_000)
    route = RouteSettings("*", f"127.0.0.1:{port}", TlsMode.NONE, limits=limits)
    egress = Egress(EgressSettings("relay.example", routes=(route,)), dice=random.Random(1), clock=time.monotonic)
    routing = egress.known_route("example.org", None)
    assert routing is not None
    connection = await egress.connect(routing)
    assert isinstance(connection, Connection)
    body = b"A line of an ordinary message, as devices send them.\r\n" * 70
    transaction = Transaction(
        "b@bounce.example", (RecipientLine("someone@example.org"),), b"Received: from x\r\n", b"Subject: a\r\n" * 20, body, 4096
    )
    for _ in range(200):
        await connection.deliver(transaction)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(messages):
        outcomes = await connection.deliver(transaction)
        assert isinstance(outcomes[0], Delivered)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{messages} messages of 4 KiB: {cpu / messages * 1e6:.0f} us CPU each, {wall / messages * 1e6:.0f} us wall")
    await connection.quit()


def main() -> None:
    port = free_port()
    sink = subprocess.Popen(["/usr/sbin/smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "100"])
    try:
        time.sleep(0.5)
        uvloop.install()
        asyncio.run(run(port, int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
    finally:
        sink.terminate()
        sink.wait()


if __name__ == "__main__":
    main()
