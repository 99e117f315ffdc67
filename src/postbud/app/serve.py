"""The supervisor: starts the relay workers, starts again what dies, answers `/health` and `/metrics`, and stops them all.

Holds no mail. Workers notice its end by their standard input; a worker that does not beat is killed and started anew (row 25).
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from postbud.app.config import Settings
from postbud.app.control import call
from postbud.app.parts import server_tls
from postbud.app.token_keys import load_token_keys
from postbud.telemetry.logs import Log
from postbud.telemetry.metrics import combine, render

# glibc: the TLS layer's buffers (256 KiB) are mapped and given back whole, else idle TLS sessions keep 20 KiB more each.
# Contents are smaller and stay on the heap, whose end is kept: mapping each buffer anew cost 700 us a message of 100 KB.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_TOP_PAD_": "1048576"}
_RESTART_SECONDS = 0.2
_RESTART_MAX_SECONDS = 10.0
_STABLE_SECONDS = 30.0
_NO_BEAT_SECONDS = 15.0
_MAX_REQUEST_OCTETS = 8192


@dataclass
class Worker:
    """One child."""

    index: int
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    restarts: int = 0
    started_at: float = 0.0
    late: int = 0  # looks in a row that found no beat: one may be a clock that was set


class Supervisor:
    """Keeps the workers running."""

    def __init__(self, settings: Settings, config_arguments: list[str], directory: Path, log: Log) -> None:
        self._settings = settings
        self._arguments = config_arguments
        self._directory = directory
        self._log = log
        self._workers = [Worker(index) for index in range(settings.workers)]
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT."""
        for folder in ("run", "spool", "events", "tls"):
            (self._settings.data / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._prepare()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        host, _, port = self._settings.config.telemetry.address.rpartition(":")
        server = await asyncio.start_server(self._answer, host.strip("[]"), int(port), limit=_MAX_REQUEST_OCTETS)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(worker)) for worker in self._workers]
            watch = group.create_task(self._watch_beats())
            await self._stop.wait()
            self._log.info("stopping", workers=len(self._workers))
            for worker in self._workers:
                if worker.process is not None and worker.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        worker.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self._settings.config.relay.drain_seconds + 15):
                    await asyncio.gather(*keepers)
            except TimeoutError:
                self._kill_all()
            watch.cancel()
        server.close()
        self._log.info("stopped")
        return 0

    def _prepare(self) -> None:
        """Make what the workers share before any of them runs."""
        relay = self._settings.config.relay
        name = relay.token_key_file
        load_token_keys(self._settings.path(name) if name else self._settings.data / "token.key")
        if any(listener.tls != "none" for listener in relay.listener):
            server_tls(self._settings)

    async def _keep(self, worker: Worker) -> None:
        wait = _RESTART_SECONDS
        while not self._stop.is_set():
            worker.started_at = time.monotonic()
            worker.ready = False
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "postbud", "worker", str(worker.index), "--directory", str(self._directory),
                *self._arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={**_MALLOC, **os.environ, "POSTBUD_SUPERVISED": "1"},
            )  # fmt: skip
            worker.process = process
            if self._stop.is_set():
                process.send_signal(signal.SIGTERM)
            if process.stdout is not None and await process.stdout.readline() == b"ready\n":
                worker.ready = True
            status = await process.wait()
            worker.ready = False
            if self._stop.is_set():
                break
            worker.restarts += 1
            self._log.error("worker_died", index=worker.index, status=status, restarts=worker.restarts)
            if time.monotonic() - worker.started_at > _STABLE_SECONDS or status == -signal.SIGKILL:
                wait = _RESTART_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stop.wait()
            wait = min(wait * 2, _RESTART_MAX_SECONDS)

    async def _watch_beats(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.time()
            for worker in self._workers:
                if not worker.ready or worker.process is None:
                    continue
                beat = self._settings.data / "run" / f"worker-{worker.index}.beat"
                with contextlib.suppress(OSError):
                    late = now - beat.stat().st_mtime
                    uptime = time.monotonic() - worker.started_at
                    worker.late = worker.late + 1 if late > _NO_BEAT_SECONDS and uptime > _NO_BEAT_SECONDS else 0
                    if worker.late > 1:
                        self._log.error("worker_hangs", index=worker.index, seconds=round(late, 1))
                        worker.process.kill()

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()

    # -- /health and /metrics ----------------------------------------------------------------------------------------------

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one GET on loopback; two fixed pages need no web framework."""
        try:
            async with asyncio.timeout(5):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
            words = line.split()
            path = words[1] if len(words) > 1 and words[0] in (b"GET", b"HEAD") else b""
            if path == b"/health":
                healthy, body = await self._health()
                status = b"200 OK" if healthy else b"503 Service Unavailable"
                kind = b"application/json"
            elif path == b"/metrics":
                status, kind, body = b"200 OK", b"text/plain; version=0.0.4; charset=utf-8", await self._metrics()
            else:
                status, kind, body = b"404 Not Found", b"text/plain", b"see /health and /metrics\n"
            head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (status, kind, len(body)))
            writer.write(b"" if words[:1] == [b"HEAD"] else body)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    async def _ask(self, op: str) -> list[dict[str, object]]:
        run = self._settings.data / "run"

        async def one(worker: Worker) -> dict[str, object] | None:
            if not worker.ready:
                return None
            try:
                return await call(run / f"worker-{worker.index}.sock", {"op": op}, 3.0)
            except (OSError, TimeoutError, ValueError):
                return None

        answers = await asyncio.gather(*(one(worker) for worker in self._workers))
        return [answer for answer in answers if answer is not None]

    async def _health(self) -> tuple[bool, bytes]:
        answers = await self._ask("ping")
        good = [answer for answer in answers if answer.get("ok")]
        healthy = len(good) == len(self._workers)
        body = {
            "healthy": healthy,
            "workers": len(self._workers),
            "ready": len(good),
            "accepting": all(answer.get("accepting") for answer in answers) and bool(answers),
            "restarts": sum(worker.restarts for worker in self._workers),
            "directory_problem": next((a["directory_problem"] for a in answers if a.get("directory_problem")), None),
        }
        return healthy, msgspec.json.encode(body) + b"\n"

    async def _metrics(self) -> bytes:
        parts: list[dict[str, float]] = []
        for answer in await self._ask("numbers"):
            numbers = answer.get("numbers")
            if isinstance(numbers, dict):
                parts.append(numbers)
        return render(combine(parts))
