"""Ingest: events a second through `POST /link/events`, with so many events present.

    python -m bench.ingest --database sqlite|postgresql --events 10000000 [--folder DIR] [--measure 200000] [--spools 2]

Fills a database through the same code (without HTTP), then has relays post batches as they ship to the real link process on its
Unix socket, roll-ups, last use and hooks on. Outcomes come seconds after their acceptance, as in life: in another batch. A
folder that is given is kept and used again.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
from tests.console.postgres import Postgres

from postbud.console.configuration import ConsoleSettings
from postbud.console.installation import make_key
from postbud.model.link import BATCH_EVENTS

_SETTINGS = (
    "shared_buffers=2GB", "max_wal_size=8GB", "checkpoint_timeout=15min", "wal_compression=lz4", "max_connections=60",
    "effective_cache_size=8GB",
)  # fmt: skip


class _Kept(Postgres):
    """A server whose folder stays."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_SETTINGS)
        shutil.rmtree(self.folder)
        self.folder = folder

    def start(self) -> None:
        """Start it; make it first when it is not there."""
        if (self.folder / "data" / "PG_VERSION").exists():
            self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
            self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "start")
            return
        self.folder.mkdir()
        super().start()
        self.create("bench")

    def halt(self) -> None:
        """Stop it."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "-t", "50", "stop")


@contextlib.contextmanager
def kept_server(folder: Path, database: str) -> Iterator[str]:
    """Have a folder's PostgreSQL run, if that is what is asked for; give the URL of its database."""
    if database != "postgresql":
        yield ""
        return
    server = _Kept(folder / "pg")
    server.start()
    try:
        yield server.url("bench")
    finally:
        server.halt()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=["sqlite", "postgresql"], required=True)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--measure", type=int, default=200_000)
    parser.add_argument("--spools", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--profile", type=Path, help="have py-spy record the link process into this file")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        make_key(folder)
        url = stack.enter_context(kept_server(folder, given.database))
        console = ConsoleSettings(data=str(folder), database=url)
        os.environ["POSTBUD_CONSOLE"] = msgspec.json.encode(console).decode()
        os.environ["DJANGO_SETTINGS_MODULE"] = "postbud.console.settings"
        run = subprocess.run
        run([sys.executable, "-m", "bench.ingest_fill", "--events", str(given.events)], check=True)
        print(json.dumps(measure(console, given.measure, given.spools, given.profile), indent=1))


def measure(console: ConsoleSettings, events: int, spools: int, profile: Path | None) -> dict[str, object]:
    """Post so many events and give the figures."""
    socket = Path(console.data) / "l.sock"
    words = [
        sys.executable, "-m", "uvicorn", "postbud.console.link.asgi:application", "--uds", str(socket),
        "--lifespan", "off", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    with subprocess.Popen(words) as process:
        try:
            return asyncio.run(_measure(socket, events, spools, profile, process.pid))
        finally:
            process.terminate()


async def _measure(socket: Path, events: int, spools: int, profile: Path | None, pid: int) -> dict[str, object]:
    makers = [
        await asyncio.create_subprocess_exec(  # another process makes the events, before the clock runs
            sys.executable, "-m", "bench.ingest_fill",
            "--bodies", str(events // spools // BATCH_EVENTS), "--spool", str(number + 1),
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(spools)
    ]  # fmt: skip
    bodies = []
    for maker in makers:
        out, _ = await maker.communicate()
        bodies.append(out.split(b"\n")[:-1])
    transport = httpx.AsyncHTTPTransport(uds=str(socket), retries=20)
    async with httpx.AsyncClient(transport=transport, base_url="http://link", timeout=120) as client:
        for _ in range(200):
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/link/health")).status_code == 200:
                    break
            await asyncio.sleep(0.1)
        watcher = None
        if profile is not None:
            watcher = subprocess.Popen(["py-spy", "record", "-t", "-o", str(profile), "-f", "raw", "-p", str(pid)])
        took: list[float] = []
        begun, ticks = time.monotonic(), _cpu_seconds(pid)
        await asyncio.gather(*(_post(client, mine, took) for mine in bodies))
        seconds, cpu = time.monotonic() - begun, _cpu_seconds(pid) - ticks
        if watcher is not None:
            watcher.send_signal(2)
            watcher.wait()
    took.sort()
    count = sum(len(mine) for mine in bodies) * BATCH_EVENTS
    return {
        "events": count,
        "events_a_second": round(count / seconds),
        "link_process_microseconds_an_event": round(cpu / count * 1e6, 1),
        "batch_p50_ms": round(took[len(took) // 2] * 1000),
        "batch_p99_ms": round(took[int(len(took) * 0.99)] * 1000),
        "load_average": os.getloadavg()[0],
    }


async def _post(client: httpx.AsyncClient, bodies: list[bytes], took: list[float]) -> None:
    for body in bodies:
        begun = time.monotonic()
        answer = await client.post("/link/events", content=body)
        answer.raise_for_status()
        took.append(time.monotonic() - begun)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
