"""What idle sessions cost: 10,000 that said EHLO and wait, plain and in TLS; resident memory of all workers.

Run: python -m bench.idle [sessions]

Clients are plain sockets; in TLS the handshake is done through memory and the client's state thrown away, for the server keeps
its own half.
"""

import contextlib
import resource
import socket
import ssl
import sys
import time
from pathlib import Path

from bench.parties import PARTIES, Running, running
from tests.ports import free_port

Row = dict[str, float | str]


def measure(sessions: int = 10_000) -> list[Row]:
    """Give resident memory before and with the sessions, in MiB, for plain and for TLS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return [_measure(sessions, tls=tls) for tls in (False, True)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _measure(sessions: int, *, tls: bool) -> Row:
    postbud = next(party for party in PARTIES if party.name == "postbud")
    with running(postbud, free_port()) as one, contextlib.ExitStack() as open_sockets:
        time.sleep(1)
        before = workers_mib(one)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(sessions):
            client = open_sockets.enter_context(socket.create_connection(("127.0.0.1", one.auth_port if tls else one.port), 30))
            _say(client, b"", b"220")
            _say(client, b"EHLO client.example\r\n", b"250")
            if tls:
                _say(client, b"STARTTLS\r\n", b"220")
                _handshake(client, context)
        time.sleep(3)
        found = workers_mib(one)
    row: Row = {"kind": "TLS" if tls else "plain", "sessions": sessions, "before": before, "after": found}
    print(f"idle: {row}", flush=True)
    return row


def _say(client: socket.socket, line: bytes, code: bytes) -> None:
    client.sendall(line)
    heard = b""
    while not heard.endswith(b"\r\n") or heard.splitlines()[-1][3:4] == b"-":
        if not (octets := client.recv(4096)):
            break
        heard += octets
    if heard[:3] != code:
        raise RuntimeError(f"{code.decode()} was expected, the server said {heard!r}")


def _handshake(client: socket.socket, context: ssl.SSLContext) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    state = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            state.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.sendall(outgoing.read())
            incoming.write(client.recv(16_384))
    state.write(b"EHLO client.example\r\n")
    client.sendall(outgoing.read())
    client.recv(16_384)


def workers_mib(one: Running) -> float:
    """Give the resident memory of all workers (not of the supervisor, the first process), in MiB."""
    total = 0
    for pid in one.processes()[1:]:
        with contextlib.suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return total / 2**20


def table(rows: list[Row]) -> str:
    """Give the table."""
    lines = ["| idle sessions | | before, MiB | with them, MiB | KiB a session |", "|---|---|---:|---:|---:|"]
    for row in rows:
        sessions, before, after = float(row["sessions"]), float(row["before"]), float(row["after"])
        each = (after - before) * 1024 / sessions
        lines.append(f"| {sessions:,.0f} | {row['kind']} | {before:.0f} | {after:.0f} | {each:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
