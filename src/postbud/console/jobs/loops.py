"""Which loops there are: name, seconds between two runs, and what is run. Adding one is a line here."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from postbud.console.hooks import services as hooks
from postbud.console.hooks.sender import Sender
from postbud.net.dns import Resolver, ResolverSettings
from postbud.net.guarded import GuardedClient
from postbud.telemetry.logs import Log

Work = Callable[[threading.Event, Log], None]


def _hook_client() -> GuardedClient:
    guard, ports = hooks.guard()
    return GuardedClient(Resolver(ResolverSettings(), time.monotonic), guard, ports=ports)


def at_times(function: Callable[[datetime], object]) -> Work:
    """Make work of a function that takes the time."""
    return lambda _stop, _log: (function(datetime.fromtimestamp(time.time(), UTC)), None)[1]


def loops() -> tuple[tuple[str, float, Work], ...]:
    """Build every loop of the console."""
    return (
        ("send-hooks", 0.5, Sender(_hook_client)),
        ("prune-hooks", 300.0, at_times(hooks.prune)),
    )
