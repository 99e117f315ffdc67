"""Structured logs: JSON lines or console text on standard error; one id follows a message from accept to final reply.

A log that cannot be written (full disk, pipe that nobody reads) never stops mail: lines are dropped and counted (row 60).
"""

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Protocol

import msgspec
import structlog

_MAX_WAITING = 10_000
_JSON = msgspec.json.Encoder(enc_hook=repr)
_LINES_AT_ONCE = 500
_GATHER_SECONDS = 0.02


class Log(Protocol):
    """A structured logger: an event and fields."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log for developers."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log what happened."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what an operator should see."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log what an operator must see."""

    def exception(self, event: str, **fields: Any) -> Any:
        """Log a bug with its traceback."""


class Lines:
    """Writes whole lines from a thread of its own, so that a pipe that nobody reads or a full disk never stops mail (row 60).

    What cannot be taken is dropped and counted. `close` writes what waits.
    """

    def __init__(self, descriptor: int, limit: int = _MAX_WAITING) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._waiting: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._awake = False  # the thread is about to look: another wake would cost a switch of threads and change nothing
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def msg(self, message: str) -> None:
        """Take one line."""
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return
        self._waiting.append(message)
        if not self._awake:
            self._awake = True
            self._wake.set()

    log = debug = info = warn = warning = error = critical = fatal = exception = msg

    def close(self) -> None:
        """Write what waits, for a second at most. Idempotent."""
        self._closing = True
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._closing:
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()
            self._awake = False
            while self._waiting:
                lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LINES_AT_ONCE))]
                self._write("\n".join(lines).encode("utf-8", "backslashreplace") + b"\n", len(lines))
            if self._closing:
                return

    def _write(self, octets: bytes, lines: int) -> None:
        try:
            while octets:
                octets = octets[os.write(self._descriptor, octets) :]
        except OSError:
            self.dropped += lines


def _as_json(logger: Any, method: str, fields: structlog.typing.EventDict) -> str:
    """Do in one step what structlog's own processors do in three: a line for each message is a tenth of accepting it."""
    if "exc_info" in fields:
        fields = structlog.processors.format_exc_info(logger, method, fields)
    fields["level"] = method
    return _JSON.encode(fields).decode()


def configure(*, level: str, as_json: bool, worker: str) -> tuple[Log, Lines]:
    """Make the one logger of a process and its sink.

    Raises:
        ValueError: `level` is no level.
    """
    lines = Lines(sys.stderr.fileno())
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ValueError(f"log level {level!r} is none of debug, info, warning, error")
    stamp: Any = structlog.processors.TimeStamper(fmt="iso", utc=True)
    for_people: list[Any] = [
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=False),
    ]
    log: Log = structlog.wrap_logger(
        lines,
        processors=[stamp, _as_json] if as_json else for_people,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        worker=worker,
    )
    return log, lines
