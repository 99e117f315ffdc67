"""Which loops there are: name, seconds between two runs, and what is run. Adding one is a line here."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from postbud.console.accounts import leaving, membership, notices
from postbud.console.accounts.sessions import forget_sessions
from postbud.console.domains import checking
from postbud.console.hooks import services as hooks
from postbud.console.hooks.sender import Sender
from postbud.console.link import services as link
from postbud.console.mail import retention, weekly
from postbud.net.dns import Resolver, ResolverSettings
from postbud.net.guarded import GuardedClient
from postbud.telemetry.logs import Log

_LONGEST_SECONDS = 20.0  # of one run of a loop that has batches: below the lease that keeps other consoles from it

Work = Callable[[threading.Event, Log], None]


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop: `work` is called every `seconds`; `close` when it runs no more."""

    name: str
    seconds: float
    work: Work
    close: Callable[[], None] = lambda: None


def loops() -> tuple[Loop, ...]:
    """Build every loop of the console."""
    sender = Sender(_hook_client)
    return (
        Loop("send-hooks", 0.5, sender, sender.close),
        Loop("prune-hooks", 300.0, at_times(hooks.prune)),
        Loop("send-notices", 1.0, at_times(notices.send_due)),
        Loop("check-domains", 10.0, in_batches(checking.check_due)),
        Loop("forget-sessions", 300.0, in_batches(forget_sessions)),
        Loop("forget-invitations", 3600.0, in_batches(membership.forget_invitations)),
        Loop("clear-link", 60.0, in_batches(link.clear)),
        Loop("prune-log", 60.0, in_batches(retention.prune_log)),
        Loop("prune-content", 60.0, in_batches(retention.prune_content)),
        Loop("send-weekly", 60.0, in_batches(weekly.send_due)),
        Loop("erase-accounts", 300.0, in_batches(leaving.erase_closed)),
        Loop("clear-content", 3600.0, at_times(retention.clear_leftovers)),
    )


def at_times(function: Callable[[datetime], object]) -> Work:
    """Make work of a function that takes the time."""

    def work(_stop: threading.Event, _log: Log) -> None:
        function(datetime.fromtimestamp(time.time(), UTC))

    return work


def in_batches(function: Callable[[datetime], int]) -> Work:
    """Make work of a function that takes the time and does some at a call, until nothing is left, for some seconds at most."""

    def work(stop: threading.Event, _log: Log) -> None:
        ends = time.monotonic() + _LONGEST_SECONDS
        while function(datetime.fromtimestamp(time.time(), UTC)) and not stop.is_set() and time.monotonic() < ends:
            pass

    return work


def _hook_client() -> GuardedClient:
    guard, ports = hooks.guard()
    return GuardedClient(Resolver(ResolverSettings(), time.monotonic), guard, ports=ports)
