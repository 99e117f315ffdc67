"""A node's state to its console, every few seconds (flow 6): what its workers count, their lanes, where its directory stands.

Nothing waits for it: a console that does not answer is told again at the next time, with what is true then.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from postbud.app.config import Settings
from postbud.model.link import STATE_SECONDS, NodeState, WorkerState
from postbud.net.http import LinkClient, LinkDown, LinkRefused

Ask = Callable[[str], Awaitable[dict[int, dict[str, Any]]]]


class Reporter:
    """Posts the state of a node."""

    def __init__(self, settings: Settings, client: LinkClient, directory_seq: Callable[[], int]) -> None:
        self._settings = settings
        self._client = client
        self._directory_seq = directory_seq
        self._version = version("postbud")

    async def run(self, ask: Ask) -> None:
        """Post until cancelled; `ask` asks every worker that is ready."""
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
        )
