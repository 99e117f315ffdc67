"""Content of servers that keep it: copied aside when a delivery ends, and put at the console from there (flow 7).

Best effort, and tried again: a copy survives restarts, but is not synced, and of too many the newest are left out. Mail never
waits for the console; a copy is made before the result is recorded, since the spool forgets the content then.
"""

import asyncio
import contextlib
import os
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from postbud.link.replica import Replica
from postbud.model.content import Content
from postbud.model.delivery import Message
from postbud.net.http import LinkClient, LinkDown, LinkRefused

_LIMIT_OCTETS = 1 << 30
_LOOK_SECONDS = 5.0
_REST_SECONDS = 30.0
_CHUNK_OCTETS = 1024 * 1024
_NO_RIGHT = frozenset({401, 403})


class Keeping:
    """Copies aside, and puts away. The folder is the node's; each worker puts away its share of it, whoever copied."""

    def __init__(
        self, folder: Path, index: int, workers: int, replica: Replica, client: LinkClient, on_problem: Callable[[str], None]
    ) -> None:
        """`folder` is DATA/keep."""
        self._folder = folder
        self._index = index
        self._workers = workers
        self._replica = replica
        self._client = client
        self._on_problem = on_problem
        self._octets = 0
        self._roused = asyncio.Event()
        self.problem: str | None = None

    def wants(self, message: Message) -> bool:
        """Tell whether the content of a message is to be kept: its server says so, and it is no report of ours."""
        server = self._replica.directory.server(message.account, message.server)
        return server is not None and server.keep_content and not message.is_dsn

    async def copy(self, message: Message, content: Content) -> None:
        """Copy a content aside.

        Never raises for want of room: then it is not kept, and somebody hears of it.
        """
        path = self._folder / f"{message.id}.{message.account}.{message.server}"
        try:
            if await asyncio.to_thread(self._write, path, content):
                self._roused.set()
        except OSError as error:
            self._on_problem(f"content of {message.id} is not kept: {error}")

    def _write(self, path: Path, content: Content) -> bool:
        if path.exists():
            return False
        if self._octets + content.octets > _LIMIT_OCTETS:
            raise OSError("too much waits to be put at the console")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f".{path.name}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.header + b"\r\n")
            if isinstance(content.body, bytes):
                file.write(content.body)
            else:
                with content.body.open("rb") as body:
                    while chunk := body.read(_CHUNK_OCTETS):
                        file.write(chunk)
        part.replace(path)
        self._octets += content.octets
        return True

    async def run(self) -> None:
        """Put copies away until cancelled."""
        while True:
            rest = 0.0
            try:
                for path in await asyncio.to_thread(self._mine):
                    await self._put_away(path)
                self.problem = None
            except (LinkDown, OSError) as error:
                why = f"content waits: {error}"
                if self.problem != why:
                    self._on_problem(why)
                self.problem, rest = why, _REST_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._roused.wait()
            self._roused.clear()
            await asyncio.sleep(rest)

    def _mine(self) -> list[Path]:
        try:
            found = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []
        self._octets = sum(path.stat().st_size for path in found)
        return [path for path in found if zlib.crc32(path.name.encode()) % self._workers == self._index]

    async def _put_away(self, path: Path) -> None:
        message, account, server = path.name.split(".")
        try:
            await self._client.put(f"/link/content/{message}", _read(path), {"account": account, "server": server})
        except LinkRefused as error:
            if error.status in _NO_RIGHT:
                raise LinkDown(str(error)) from error
            self._on_problem(f"content of {message} is not kept: {error}")
        await asyncio.to_thread(path.unlink, missing_ok=True)


async def _read(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_OCTETS):
            yield chunk
    finally:
        file.close()
