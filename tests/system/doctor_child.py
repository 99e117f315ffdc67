"""Runs inside a network namespace: a DNS server on port 53, a greeting on port 25, and `postbud doctor --json` among them.

`python -m tests.system.doctor_child PLAN.json`: `zone` ([[name, type], records] pairs), `listens` (an address for port 25, or
empty), `words` (the command), `before` (a command that is run first, such as faketime's).
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.system.dns_stub import DnsStub

_DNS_PORT = 53


class NamespaceDns(DnsStub):
    """The scripted server, at the port where everybody looks."""

    async def serve(self) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, ("127.0.0.1", _DNS_PORT))
        await asyncio.start_server(self._serve_tcp, "127.0.0.1", _DNS_PORT)


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mx.probe.example ESMTP\r\n")
    await writer.drain()
    writer.close()


async def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    zone = {(name, kind): records for (name, kind), records in plan["zone"]}
    await NamespaceDns(zone).serve()
    if plan["listens"]:
        await asyncio.start_server(_greet, plan["listens"], 25)
    doctor = await asyncio.create_subprocess_exec(*plan["words"], stdout=asyncio.subprocess.PIPE)
    told, _ = await doctor.communicate()
    sys.stdout.write(told.decode())
    return int(doctor.returncode or 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
