"""Post what waits in the outbox: signed, in order per message, with bounded time and places for each endpoint (J6).

Owns when a hook is tried again and when an endpoint is paused. No transaction is open while a post is under way. A slow or
silent endpoint takes its own places only. Standard Webhooks 1.0: signatures, retries, 410.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from django.db import connection
from standardwebhooks.webhooks import Webhook

from postbud.console.hooks import queue
from postbud.console.hooks.queue import Due, Result
from postbud.net.guarded import GuardedClient, NotReached, UrlRefused
from postbud.telemetry.logs import Log

T = TypeVar("T")

# seconds after the first failure, the second …; together three days (Standard Webhooks, "deliverability and reliability")
RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 75_000)
GIVE_UP_AFTER = timedelta(days=3)  # an endpoint without a success for so long is paused
GONE = 410
_TURN_SECONDS = 10.0
_LOOK_SECONDS = 0.3
_PLACES = 50
_PLACES_PER_ENDPOINT = 4
_ANSWER_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an attempt: when the next is (None: no more), and whether the endpoint is paused."""

    delivered: bool
    wait_seconds: float | None
    pause: bool


def judge(status: int | None, attempts: int, failing_for: timedelta, dice: float) -> Verdict:
    """Decide on an answer (None: none came) to the attempt of that number. `dice` in [0, 1) spreads retries by a fifth."""
    if status is not None and 200 <= status < 300:
        return Verdict(delivered=True, wait_seconds=None, pause=False)
    pause = status == GONE or failing_for >= GIVE_UP_AFTER
    if attempts > len(RETRY_SECONDS):
        return Verdict(delivered=False, wait_seconds=None, pause=pause)
    return Verdict(delivered=False, wait_seconds=RETRY_SECONDS[attempts - 1] * (0.9 + dice / 5), pause=pause)


def signed_headers(secrets: tuple[str, ...], event: str, at: datetime, body: bytes) -> dict[str, str]:
    """Give the header fields of a post, signed with each secret (two while one replaces the other)."""
    text = body.decode()
    return {
        "content-type": "application/json",
        "webhook-id": event,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(event, at, text) for secret in secrets),
    }


class Sender:
    """Sends for some seconds at a time; the loop of jobs calls it again and again."""

    def __init__(self, make_client: Callable[[], GuardedClient], clock: Callable[[], float] = time.time) -> None:
        self._make_client = make_client
        self._clock = clock
        self._database = ThreadPoolExecutor(1, "hooks-database")  # Django keeps one connection a thread
        self._dice = random.Random()  # noqa: S311 (spreads retries)

    def __call__(self, stop: threading.Event, log: Log) -> None:
        """Send what is due, for one turn."""
        asyncio.run(self.turn(stop, log))

    async def turn(self, stop: threading.Event, log: Log) -> int:
        """Send what falls due within a turn; give how many posts were made."""
        until = time.monotonic() + _TURN_SECONDS
        busy: dict[int, str] = {}
        posts = 0
        async with self._make_client() as client, asyncio.TaskGroup() as group:
            while not stop.is_set() and time.monotonic() < until:
                due = await self._ask(queue.due, self._now(), self._free(busy), tuple(busy)) if len(busy) < _PLACES else []
                for one in due:
                    posts += 1
                    busy[one.hook] = one.endpoint
                    task = group.create_task(self._send(client, one, log))
                    task.add_done_callback(partial(_free_place, busy, one.hook))
                if not due and not busy:
                    break
                await asyncio.sleep(_LOOK_SECONDS if not due else 0)
        return posts

    def close(self) -> None:
        """Let go of the database. No turn may be under way."""
        self._database.submit(_disconnect).result()
        self._database.shutdown()

    @staticmethod
    def _free(busy: dict[int, str]) -> Callable[[str], int]:
        taken = Counter(busy.values())
        left = _PLACES - len(busy)
        return lambda endpoint: min(left, _PLACES_PER_ENDPOINT - taken[endpoint])

    async def _send(self, client: GuardedClient, due: Due, log: Log) -> None:
        began = time.monotonic()
        at = self._now()
        status, error, answer = None, "", ""
        try:
            got = await client.post(due.url, signed_headers(due.secrets, due.event, at, due.body), due.body)
            status, answer = got.status, got.body[:_ANSWER_CHARACTERS].decode("utf-8", "replace").replace("\x00", "\ufffd")
        except (UrlRefused, NotReached) as failed:
            error = str(failed)[:300]
        verdict = judge(status, due.attempts + 1, due.failing_for(at), self._dice.random())
        result = Result(
            due=due,
            at=at,
            milliseconds=int((time.monotonic() - began) * 1000),
            status=status,
            error=error,
            answer=answer,
            delivered=verdict.delivered,
            next_at=at + timedelta(seconds=verdict.wait_seconds) if verdict.wait_seconds is not None else None,
            pause=verdict.pause,
        )
        if verdict.pause:
            log.warning("endpoint_paused", endpoint=due.endpoint, account=due.account, status=status, why=error)
        await self._ask(queue.record, result)

    async def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._database, partial(function, *arguments))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _disconnect() -> None:
    connection.close()  # the calling thread's own


def _free_place(busy: dict[int, str], hook: int, _: object) -> None:
    busy.pop(hook)
