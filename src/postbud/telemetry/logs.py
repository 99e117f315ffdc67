"""Structured logs: JSON lines or console text on standard error; one id follows a message from accept to final reply.

A log that cannot be written (full disk, closed pipe) never stops mail: lines are dropped and counted (row 60).
"""

import logging
import os
import sys
from typing import Any, Protocol, TextIO

import structlog


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
    """Writes whole lines without ever blocking or raising; counts what it had to drop."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self.dropped = 0

    def msg(self, message: str) -> None:
        """Write one line."""
        try:
            os.write(self._descriptor, message.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            self.dropped += 1

    log = debug = info = warn = warning = error = critical = fatal = exception = msg


def configure(*, level: str, as_json: bool, worker: str) -> tuple[Log, Lines]:
    """Make the one logger of a process and its sink.

    Raises:
        ValueError: `level` is no level.
    """
    lines = Lines(sys.stderr)
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ValueError(f"log level {level!r} is none of debug, info, warning, error")
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    log: Log = structlog.wrap_logger(
        lines,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        worker=worker,
    )
    return log, lines
