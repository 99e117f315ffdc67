"""A node's state to its console, every few seconds (flow 6): what its workers count, their lanes, where its directory stands.

Nothing waits for it: a console that does not answer is told again at the next time, with what is true then. Every few hours
the doctor looks at the machine, in a process of its own, and what it finds goes along.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from postbud.app.config import Settings
from postbud.model.link import STATE_SECONDS, NodeState, WorkerState
from postbud.net.http import LinkClient, LinkDown, LinkRefused

_HEALTH_FIRST_SECONDS = 20.0
_HEALTH_TAKES_SECONDS = 120.0
_MOST_FINDINGS = 200
Ask = Callable[[str], Awaitable[dict[int, dict[str, Any]]]]


class Reporter:
    """Posts the state of a node."""

    def __init__(
        self, settings: Settings, client: LinkClient, directory_seq: Callable[[], int], options: Sequence[str] = ()
    ) -> None:
        """`options` are those that `postbud doctor` is called with here."""
        self._options = list(options)
        self._health: list[dict[str, str]] = []
        self._health_at: datetime | None = None
        self._settings = settings
        self._client = client
        self._directory_seq = directory_seq
        self._version = version("postbud")

    async def run(self, ask: Ask) -> None:
        """Post until cancelled; `ask` asks every worker that is ready."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_after_health())
            await self._post(ask)

    async def _look_after_health(self) -> None:
        pause = self._settings.config.doctor.every_hours * 3600
        if pause <= 0:
            return
        await asyncio.sleep(_HEALTH_FIRST_SECONDS)
        while True:
            with contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError):
                self._health = await self._examine()
                self._health_at = datetime.fromtimestamp(time.time(), UTC)
            await asyncio.sleep(pause)

    async def _examine(self) -> list[dict[str, str]]:
        doctor = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbud", "doctor", "--json", *self._options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_HEALTH_TAKES_SECONDS):
                told, _ = await doctor.communicate()
        finally:
            if doctor.returncode is None:
                doctor.kill()
                await doctor.wait()
        return [msgspec.json.decode(line, type=dict[str, str]) for line in told.splitlines()[:_MOST_FINDINGS]]

    async def _post(self, ask: Ask) -> None:
        while True:
            with contextlib.suppress(LinkDown, LinkRefused):
                state = self.state(await ask("numbers"))
                await self._client.tell("/link/state", msgspec.json.encode(state))
            await asyncio.sleep(STATE_SECONDS)

    def state(self, answers: dict[int, dict[str, Any]]) -> NodeState:
        """Give the state from the workers' answers."""
        relay = self._settings.config.relay
        return NodeState(
            node=relay.node or self._settings.hostname,
            at=datetime.fromtimestamp(time.time(), UTC),
            version=self._version,
            directory_seq=self._directory_seq(),
            workers=[
                WorkerState(index, int(answer.get("spool", 0)), answer.get("numbers", {}), answer.get("lanes", []))
                for index, answer in sorted(answers.items())
                if "numbers" in answer
            ],
            listeners=[
                {"address": one.address, "role": one.role, "tls": one.tls, "ip_credentials": one.ip_credentials}
                for one in relay.listener
            ],
            sources=[
                {"id": one.id, "address": one.address, "helo": one.helo or self._settings.hostname, "pool": one.pool or ""}
                for one in self._settings.config.source
            ],
            health=self._health,
            health_at=self._health_at,
        )
