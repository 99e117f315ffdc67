"""What the demo's catcher caught: one file a message and a list of envelopes, the newest N of them.

Owns the folder `caught/`. Invariant: what the list names is whole on disk; the raw message is what arrived, octet for octet.
"""

import threading
import time
from collections import deque
from pathlib import Path

import msgspec

_LIST = "list.jsonl"


class Caught(msgspec.Struct, frozen=True):
    """One message as the catcher got it. `at` is seconds since 1970."""

    id: str
    sender: str
    recipients: list[str]
    subject: str
    at: float
    octets: int


class CaughtBox:
    """Keeps messages as files. Safe for several threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._kept: deque[Caught] = deque(self._read())
        self._number = int(self._kept[-1].id) if self._kept else 0
        self._write_list()

    def _read(self) -> list[Caught]:
        found = []
        path = self._folder / _LIST
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                one = msgspec.json.decode(line, type=Caught)
            except msgspec.DecodeError:
                continue  # the last line of a catcher that was killed
            if (self._folder / f"{one.id}.eml").exists():
                found.append(one)
        return found[-self._limit :]

    def _write_list(self) -> None:
        made = self._folder / f".{_LIST}.new"
        made.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in self._kept))
        made.replace(self._folder / _LIST)

    def keep(self, sender: str, recipients: list[str], subject: str, octets: bytes) -> Caught:
        """Keep one message; the oldest goes when there are too many."""
        with self._lock:
            self._number += 1
            one = Caught(f"{self._number:06d}", sender, recipients, subject, time.time(), len(octets))
            (self._folder / f"{one.id}.eml").write_bytes(octets)
            with (self._folder / _LIST).open("ab") as listed:
                listed.write(msgspec.json.encode(one) + b"\n")
            self._kept.append(one)
            while len(self._kept) > self._limit:
                (self._folder / f"{self._kept.popleft().id}.eml").unlink(missing_ok=True)
            return one

    def listed(self) -> list[Caught]:
        """Give all that is kept, newest first."""
        with self._lock:
            return list(reversed(self._kept))

    def raw(self, wanted: str) -> bytes | None:
        """Give a message as it arrived; None when there is none of that id."""
        with self._lock:
            known = any(one.id == wanted for one in self._kept)
        return (self._folder / f"{wanted}.eml").read_bytes() if known else None
