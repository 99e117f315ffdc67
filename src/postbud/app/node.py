"""Which programs make up a node: the relay alone, the console alone, or both, and what each is called with.

Decides only; `app.serve` runs them. A worker of a node with a console waits for the first directory, and never again.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from postbud.app.config import Settings
from postbud.app.programs import Program, Stage

_DRAIN_MORE_SECONDS = 15.0


@dataclass(frozen=True)
class Words:
    """What every child is called with, so that it reads the settings that its supervisor read."""

    config: Path | None
    data: Path | None
    demo: bool = False

    def given(self) -> list[str]:
        """Give the options."""
        words = ["--config", str(self.config.absolute())] if self.config is not None else []
        words += ["--data", str(self.data.absolute())] if self.data is not None else []
        return words

    def console(self) -> list[str]:
        """Give the options of a console's program."""
        return [*self.given(), *(["--demo"] if self.demo else [])]


def relay_workers(
    settings: Settings, words: Words, source: list[str], known: asyncio.Event | None = None,
    environment: dict[str, str] | None = None,
) -> list[Program]:  # fmt: skip
    """Give the workers; `source` says where they get their directory, `known` is set once there is one."""
    return [
        Program(
            name=f"worker-{index}",
            words=["worker", str(index), *source, *words.given()],
            stage=Stage.WORKERS,
            drain_seconds=settings.config.relay.drain_seconds + _DRAIN_MORE_SECONDS,
            beat=settings.data / "run" / f"worker-{index}.beat",
            after=known,
            relays=True,
            environment=environment or {},
        )
        for index in range(settings.workers)
    ]


def console_programs(settings: Settings, words: Words, prepared: asyncio.Event) -> list[Program]:
    """Give pages, link and jobs, which start once the database is prepared."""
    run = settings.data / "run"
    return [
        Program("link", ["console-link", *words.console()], Stage.LINK, beat=run / "link.beat", after=prepared),
        Program("pages", ["console-pages", *words.console()], Stage.PAGES, after=prepared),
        Program("jobs", ["console-jobs", *words.console()], Stage.PAGES, beat=run / "jobs.beat", after=prepared),
    ]


def catcher_program(words: Words) -> Program:
    """Give the demo's catcher."""
    return Program("catcher", ["demo-catcher", *words.given()], Stage.CATCHER)


def traffic_program(words: Words, known: asyncio.Event) -> Program:
    """Give who plays the demo's traffic, once there is a relay to send through."""
    return Program("traffic", ["demo-traffic", *words.given()], Stage.TRAFFIC, after=known)


def link_socket(settings: Settings) -> Path:
    """Where this machine's follower and workers reach the link."""
    return settings.data / "run" / "link.sock"


def preparation(words: Words) -> Callable[[asyncio.Event], Awaitable[int]]:
    """Give what brings the console's database to this version, in a process of its own: the supervisor loads no Django."""

    async def prepare(stop: asyncio.Event) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbud", "console-prepare", *words.console(),
            stdin=asyncio.subprocess.DEVNULL, env=dict(os.environ),
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(process.wait())
            stopping = group.create_task(stop.wait())
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                process.terminate()
            status = await ending
            stopping.cancel()
        return status

    return prepare


def folders(settings: Settings, more: Iterable[str] = ()) -> None:
    """Make the folders of a node, for its user only."""
    for folder in ("run", "spool", "events", "tls", "replica", "keys", *more):
        (settings.data / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
