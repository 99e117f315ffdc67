"""Ids of what the console makes: `acct_…`, `srv_…`; they sort by time, like those of the relay (`model.ids`)."""

import secrets
import threading
import time

from postbud.model.ids import IdSource, to_text

_CONSOLE = 0  # no spool has this number
_source = IdSource(_CONSOLE, lambda: time.time_ns() // 1_000_000, secrets.token_bytes)
_lock = threading.Lock()


def new_id(prefix: str) -> str:
    """Make an id, such as `srv_…` for `srv`."""
    with _lock:
        octets = _source.octets()
    return to_text(prefix, octets)
