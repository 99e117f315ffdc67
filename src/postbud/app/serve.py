"""The supervisor: starts a node's programs, starts again what dies, answers `/health` and `/metrics`, and stops all in order.

Holds no mail. Which programs there are is told to it (`app.node`); it keeps them, prepares what they share, runs the link's
follower, and on SIGTERM first lets the workers finish and ship their last events, then ends the console.
Invariant: nothing that happens to the console stops or starts a worker, but for the very first directory.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from postbud.app.config import Settings
from postbud.app.control import call
from postbud.app.parts import server_tls
from postbud.app.programs import Program, Stage, stop_in_order
from postbud.app.reporting import Reporter
from postbud.app.token_keys import load_token_keys
from postbud.link.follow import Follower
from postbud.telemetry.logs import Log
from postbud.telemetry.metrics import combine, render

_MAX_REQUEST_OCTETS = 8192
_ASK_SECONDS = 3.0


@dataclass
class Node:
    """What a supervisor keeps running."""

    programs: list[Program]
    follower: Follower | None = None
    reporter: Reporter | None = None
    prepare: Callable[[asyncio.Event], Awaitable[int]] | None = None  # before the console's programs; an exit status
    prepared: asyncio.Event = field(default_factory=asyncio.Event)
    on_ready: Callable[[], None] | None = None  # once, when every program is ready


class Supervisor:
    """Keeps the programs of one node running."""

    def __init__(self, settings: Settings, node: Node, log: Log) -> None:
        self._settings = settings
        self._node = node
        self._log = log
        self._stop = asyncio.Event()
        self._status = 0

    @property
    def _workers(self) -> list[Program]:
        return [program for program in self._node.programs if program.relays]

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; give the exit status."""
        if self._workers:
            self._prepare_relay()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        host, _, port = self._settings.config.telemetry.address.rpartition(":")
        server = await asyncio.start_server(self._answer, host.strip("[]"), int(port), limit=_MAX_REQUEST_OCTETS)
        async with asyncio.TaskGroup() as group:
            keepers = {program.name: group.create_task(program.keep(self._log)) for program in self._node.programs}
            helpers = [group.create_task(self._watch())]
            if self._node.follower is not None:
                helpers.append(group.create_task(self._repeat(self._node.follower.run, "following the console")))
            if self._node.reporter is not None:
                reporter = self._node.reporter
                helpers.append(group.create_task(self._repeat(lambda: reporter.run(self.ask), "telling the node's state")))
            if self._node.prepare is not None:
                helpers.append(group.create_task(self._prepare_console()))
            await self._stop.wait()
            self._log.info("stopping", programs=len(self._node.programs))
            every = self._node.programs
            await stop_in_order(every, keepers, (Stage.TRAFFIC, Stage.WORKERS))
            for helper in helpers:
                helper.cancel()
            await stop_in_order(every, keepers, (Stage.PAGES, Stage.LINK, Stage.CATCHER))
        server.close()
        self._log.info("stopped")
        return self._status

    def _prepare_relay(self) -> None:
        """Make what the workers share before any of them runs."""
        relay = self._settings.config.relay
        name = relay.token_key_file
        load_token_keys(self._settings.path(name) if name else self._settings.data / "token.key")
        if any(listener.tls != "none" for listener in relay.listener):
            server_tls(self._settings)

    async def _prepare_console(self) -> None:
        """Bring the database to this version; what a person must mend (status 2) ends all, anything else is tried again."""
        wait = 1.0
        while self._node.prepare is not None:
            status = await self._node.prepare(self._stop)
            if self._stop.is_set():
                return
            if status == 0:
                self._node.prepared.set()
                return
            if status == 2:
                self._status = 2
                self._stop.set()
                return
            self._log.error("console_not_prepared", status=status, again_in_seconds=wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 30.0)

    async def _repeat(self, run: Callable[[], Awaitable[None]], what: str) -> None:
        """Keep a helper running: a bug in it must not end the node."""
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 (the one handler of this loop: mail goes on with the directory it has)
                self._log.error("bug", what=what, exc_info=error)
            await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        """Look for hearts that stopped, and say once when all is ready."""
        told = False
        while True:
            await asyncio.sleep(0.1 if not told else 1.0)
            for program in self._node.programs:
                program.look(self._log)
            if not told and all(program.ready for program in self._node.programs):
                told = True
                self._log.info("ready", programs=[program.name for program in self._node.programs])
                if self._node.on_ready is not None:
                    self._node.on_ready()

    # -- /health and /metrics ----------------------------------------------------------------------------------------------

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one GET on loopback; a few fixed pages need no web framework."""
        try:
            async with asyncio.timeout(5):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
            words = line.split()
            path = words[1] if len(words) > 1 and words[0] in (b"GET", b"HEAD") else b""
            if path in (b"/health", b"/health/all"):
                healthy, body = await self._health(whole=path == b"/health/all")
                status = b"200 OK" if healthy else b"503 Service Unavailable"
                kind = b"application/json"
            elif path == b"/metrics":
                status, kind, body = b"200 OK", b"text/plain; version=0.0.4; charset=utf-8", await self._metrics()
            else:
                status, kind, body = b"404 Not Found", b"text/plain", b"see /health, /health/all and /metrics\n"
            head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (status, kind, len(body)))
            writer.write(b"" if words[:1] == [b"HEAD"] else body)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    async def ask(self, op: str) -> dict[int, dict[str, Any]]:
        """Ask every worker that is ready; give the answers by the worker's number."""
        run = self._settings.data / "run"

        async def one(index: int) -> dict[str, Any] | None:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                return await call(run / f"worker-{index}.sock", {"op": op}, _ASK_SECONDS)
            return None

        ready = [index for index, worker in enumerate(self._workers) if worker.ready]
        answers = await asyncio.gather(*(one(index) for index in ready))
        return {index: answer for index, answer in zip(ready, answers, strict=True) if answer is not None}

    async def _health(self, *, whole: bool) -> tuple[bool, bytes]:
        answers = list((await self.ask("ping")).values())
        good = [answer for answer in answers if answer.get("ok")]
        programs = self._node.programs
        relays = len(good) == len(self._workers)
        healthy = relays and ((not whole and bool(self._workers)) or all(program.ready for program in programs))
        body = {
            "healthy": healthy,
            "workers": len(self._workers),
            "ready": len(good),
            "accepting": all(answer.get("accepting") for answer in answers) and bool(answers),
            "restarts": sum(program.restarts for program in programs),
            "directory_problem": next((a["directory_problem"] for a in answers if a.get("directory_problem")), None),
            "console_problem": self._node.follower.problem if self._node.follower is not None else None,
            "programs": {one.name: {"ready": one.ready, "restarts": one.restarts} for one in programs},
        }
        return healthy, msgspec.json.encode(body) + b"\n"

    async def _metrics(self) -> bytes:
        programs = self._node.programs
        parts: list[dict[str, float]] = [
            {
                "postbud_programs": float(len(programs)),
                "postbud_programs_ready": float(sum(program.ready for program in programs)),
                "postbud_program_restarts": float(sum(program.restarts for program in programs)),
            }
        ]
        for answer in (await self.ask("numbers")).values():
            numbers = answer.get("numbers")
            if isinstance(numbers, dict):
                parts.append(numbers)
        return render(combine(parts))
