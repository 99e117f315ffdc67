"""Runs the console's loops: each in its own thread, with a lease, so that several consoles on one database share them.

Owns when a loop runs, not what it does. A loop that raises is logged and runs again at its time; the others go on.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from django.db import close_old_connections, connection

from postbud.console.jobs import services
from postbud.console.jobs.loops import Loop, loops
from postbud.telemetry.logs import Log, configure

_LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_ALIVE_SECONDS = 1.0
_AFTER_ERROR_SECONDS = 5.0


def run(stop: threading.Event, alive: Callable[[], None]) -> None:
    """Run every loop until `stop` is set; `alive` is called each second while all threads live."""
    log, _ = configure(level="warning", as_json=True, worker="jobs")
    owner = f"{socket.gethostname()}:{os.getpid()}"
    threads = [threading.Thread(target=_keep, args=(loop, owner, stop, log), name=loop.name) for loop in loops()]
    for thread in threads:
        thread.start()
    while not stop.wait(_ALIVE_SECONDS):
        if all(thread.is_alive() for thread in threads):
            alive()
    for thread in threads:
        thread.join()


def _keep(loop: Loop, owner: str, stop: threading.Event, log: Log) -> None:
    until = 0.0
    next_at = 0.0
    while not stop.is_set():
        pause = loop.seconds
        try:
            close_old_connections()
            if time.monotonic() >= until - _LEASE_SECONDS + _RENEW_SECONDS:
                until = time.monotonic() + _LEASE_SECONDS if _take(loop.name, owner) else 0.0
            if until and time.monotonic() >= next_at:
                loop.work(stop, log)
                next_at = time.monotonic() + loop.seconds
        except Exception as error:  # noqa: BLE001 (the one handler of this loop)
            _tell(log, loop.name, error)
            pause = max(loop.seconds, _AFTER_ERROR_SECONDS)
            next_at = time.monotonic() + pause
        stop.wait(min(pause, _RENEW_SECONDS))
    try:
        loop.close()
        services.give_back(loop.name, owner)
    except Exception as error:  # noqa: BLE001 (stopping: the lease ends by itself)
        _tell(log, loop.name, error)
    connection.close()


def _take(name: str, owner: str) -> bool:
    now = datetime.fromtimestamp(time.time(), UTC)
    return services.take(name, owner, now, timedelta(seconds=_LEASE_SECONDS))


def _tell(log: Log, name: str, error: Exception) -> None:
    log.error("loop_failed", loop=name, exc_info=error)
