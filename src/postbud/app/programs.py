"""Programs that a supervisor keeps: started, known to be ready by their first line, started again when they die or hang.

Knows processes only, not what they do. A program notices its supervisor's end by its standard input (row 11); one that has a
heartbeat and does not beat is killed and started anew (row 25). Invariant: what was told to stop is not started again.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from postbud.telemetry.logs import Log

# glibc: the TLS layer's buffers (256 KiB) are mapped and given back whole, else idle TLS sessions keep 20 KiB more each.
# Contents are smaller and stay on the heap, whose end is kept: mapping each buffer anew cost 700 us a message of 100 KB.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_TOP_PAD_": "1048576"}
_RESTART_SECONDS = 0.2
_RESTART_MAX_SECONDS = 10.0
_STABLE_SECONDS = 30.0
_NO_BEAT_SECONDS = 15.0
_ORPHAN_SECONDS = 15.0
_READY = b"ready\n"


class Stage(IntEnum):
    """The order of stopping: who gives work first, who takes it last."""

    TRAFFIC = 0
    WORKERS = 1
    PAGES = 2
    LINK = 3
    CATCHER = 4


@dataclass
class Program:
    """One child: what it runs, and how it is."""

    name: str
    words: list[str]  # behind `postbud`
    stage: Stage
    drain_seconds: float = 15.0
    beat: Path | None = None
    after: asyncio.Event | None = None  # not started before this is set
    relays: bool = False  # mail flows through it
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    restarts: int = 0
    started_at: float = 0.0
    late: int = 0  # looks in a row that found no beat: one may be a clock that was set
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, log: Log) -> None:
        """Start it, and start it again whenever it ends, until it is told to stop."""
        if self.after is not None and not await _either(self.after, self.stopping):
            return
        wait = _RESTART_SECONDS
        while not self.stopping.is_set():
            status = await self._run_once()
            if self.stopping.is_set():
                break
            self.restarts += 1
            event = "worker_died" if self.relays else "program_died"
            log.error(event, name=self.name, status=status, restarts=self.restarts)
            if time.monotonic() - self.started_at > _STABLE_SECONDS or status == -signal.SIGKILL:
                wait = _RESTART_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.stopping.wait()
            wait = min(wait * 2, _RESTART_MAX_SECONDS)

    async def _run_once(self) -> int:
        self.started_at = time.monotonic()
        self.ready = False
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbud", *self.words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**_MALLOC, **os.environ, **self.environment, "POSTBUD_SUPERVISED": "1"},
            process_group=None if self.stage <= Stage.WORKERS else 0,  # signals to a group must not end the console first
        )  # fmt: skip
        if self.stopping.is_set():
            self.terminate()
        async with asyncio.TaskGroup() as group:  # a grandchild may hold the pipe open: what counts is the child's end
            hearing = group.create_task(self._hear(self.process.stdout))
            status = await self.process.wait()
            hearing.cancel()
        self.ready = False
        return status

    async def _hear(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (line := await stream.readline()):
            self.ready = self.ready or line == _READY

    @property
    def runs(self) -> bool:
        """Whether there is a process now."""
        return self.process is not None and self.process.returncode is None

    def terminate(self) -> None:
        """Tell it to end, and do not start it again."""
        self.stopping.set()
        if self.process is not None and self.runs:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None and self.runs:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def look(self, log: Log) -> None:
        """Kill it when its heart has stopped; called once a second."""
        if not self.ready or self.beat is None:
            return
        with contextlib.suppress(OSError):
            late = time.time() - self.beat.stat().st_mtime
            uptime = time.monotonic() - self.started_at
            self.late = self.late + 1 if late > _NO_BEAT_SECONDS and uptime > _NO_BEAT_SECONDS else 0
            if self.late > 1:
                log.error("worker_hangs" if self.relays else "program_hangs", name=self.name, seconds=round(late, 1))
                self.kill()


async def _either(wanted: asyncio.Event, stopping: asyncio.Event) -> bool:
    """Wait for one of two; tell whether it was the wanted one."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wanted.wait()), group.create_task(stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return wanted.is_set()


async def stop_in_order(programs: Iterable[Program], keepers: dict[str, asyncio.Task[None]], stages: Iterable[Stage]) -> None:
    """Stop the programs of the stages, one stage after the other; what does not end in its time is killed."""
    every = list(programs)
    for stage in stages:
        those = [program for program in every if program.stage == stage]
        for program in those:
            program.terminate()
        waiting = [keepers[program.name] for program in those]
        if not waiting:
            continue
        try:
            async with asyncio.timeout(max(program.drain_seconds for program in those)):
                await asyncio.shield(asyncio.gather(*waiting))
        except TimeoutError:
            for program in those:
                program.kill()


# -- the other side: what a program itself does ----------------------------------------------------------------------------


def say_ready() -> None:
    """Tell the supervisor that this program serves."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def stop_signals() -> tuple[signal.Signals, ...]:
    """Give the signals that end this program. Ctrl-C reaches a whole group at once: there the supervisor keeps the order."""
    if os.environ.get("POSTBUD_SUPERVISED") != "1":
        return signal.SIGTERM, signal.SIGINT
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return (signal.SIGTERM,)


def end_with_supervisor() -> None:
    """End this process as by SIGTERM once the supervisor's end of our standard input closes."""
    if os.environ.get("POSTBUD_SUPERVISED") != "1":
        return
    own = os.getpid()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(own, signal.SIGTERM)
        time.sleep(_ORPHAN_SECONDS)
        os.kill(own, signal.SIGKILL)

    threading.Thread(target=watch, name="watch-supervisor", daemon=True).start()
