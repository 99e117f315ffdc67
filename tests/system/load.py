"""Load for a relay that may be killed at any time: keeps sending, and keeps the client's log that P1 is judged by.

Every attempt is a JSON line {at, test_id, account, recipients, sha256, state}: `queued` (250 read, with `message`), `refused`
(another reply) or `unknown` (the final dot went out and no reply or 451 came: may or may not have been stored). A refused or
unknown attempt is *not* sent again: each test id is submitted at most once, so every second copy at the sink is the
relay's own.
"""

import asyncio
import contextlib
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.smtp import content_digest, make_content, new_test_id, plain, stuff


@dataclass
class Load:
    """Some sessions in a thread of their own, each sending message after message until told to stop."""

    port: int
    path: Path
    sessions: int = 8
    sizes: tuple[int, ...] = (1024, 4096, 4096, 16384)
    recipients: tuple[int, ...] = (1, 1, 1, 3)
    messages_per_session: int = 20
    pause_seconds: float = 0.0  # between messages of one session
    recipient_prefix: str = "r"
    usernames: tuple[tuple[str, str], ...] = (("printer-1", "acme.example"), ("beta-1", "beta.example"))
    counts: dict[str, int] = field(default_factory=lambda: {"queued": 0, "refused": 0, "unknown": 0, "broken": 0})
    worst_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._out = self.path.open("a", encoding="ascii")

    def start(self) -> "Load":
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> dict[str, int]:
        """End after the messages under way; give the counts."""
        self._stop.set()
        self._thread.join(60)
        self._out.close()
        return self.counts

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.sessions):
                group.create_task(self._session_loop(random.Random(number)))

    async def _session_loop(self, dice: random.Random) -> None:
        while not self._stop.is_set():
            try:
                await self._session(dice)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                self.counts["broken"] += 1
                await asyncio.sleep(0.02 + dice.random() * 0.05)

    async def _session(self, dice: random.Random) -> None:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 10)
        try:
            username, domain = dice.choice(self.usernames)
            await _reply(reader)
            for line in ("EHLO load.example", f"AUTH PLAIN {plain(username)}"):
                writer.write(line.encode() + b"\r\n")
                if (await _reply(reader))[0] not in (250, 235):
                    raise EOFError(line)
            for _ in range(self.messages_per_session):
                if self._stop.is_set():
                    break
                if not await self._message(reader, writer, dice, domain):
                    break
                await asyncio.sleep(self.pause_seconds)
            writer.write(b"QUIT\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _message(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random, domain: str
    ) -> bool:
        test_id = new_test_id()
        recipients = [f"{self.recipient_prefix}{n}-{test_id}@dest.example" for n in range(dice.choice(self.recipients))]
        content = make_content(test_id, dice.choice(self.sizes), sender=f"printer@{domain}", recipient=recipients[0])
        record: dict[str, Any] = {
            "at": time.time(),
            "test_id": test_id,
            "account": "acct_" + domain.partition(".")[0],
            "recipients": recipients,
            "sha256": content_digest(content)[1],
        }
        commands = [f"MAIL FROM:<printer@{domain}>", *(f"RCPT TO:<{mailbox}>" for mailbox in recipients), "DATA"]
        writer.write("".join(command + "\r\n" for command in commands).encode())
        codes = [(await _reply(reader)) for _ in commands]
        if codes[-1][0] != 354 or any(code != 250 for code, _ in codes[:-1]):
            self._log(record | {"state": "refused", "reply": codes[-1][1]})
            return False
        began = time.monotonic()
        try:
            writer.write(stuff(content))
            await writer.drain()
            code, text = await _reply(reader)
        except BaseException:
            self._log(record | {"state": "unknown"})
            raise
        self.worst_seconds = max(self.worst_seconds, time.monotonic() - began)
        if code == 250:
            self._log(record | {"state": "queued", "message": text.partition("queued as ")[2].split(" ")[0]})
        else:
            self._log(record | {"state": "unknown" if code in (421, 451) else "refused", "reply": text})
        return code != 421

    def _log(self, record: dict[str, Any]) -> None:
        self.counts[record["state"]] += 1
        self._out.write(json.dumps(record | {"replied_at": time.time()}) + "\n")
        self._out.flush()


async def _reply(reader: asyncio.StreamReader) -> tuple[int, str]:
    while True:
        line = await asyncio.wait_for(reader.readline(), 45)
        if not line.endswith(b"\n"):
            raise EOFError
        if line[3:4] != b"-":
            return int(line[:3]), line[4:].decode("ascii", "replace").strip()
