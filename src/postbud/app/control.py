"""Control sockets: one JSON request and one JSON answer a line, over a Unix socket that only the owner may open.

Each worker serves `data/run/worker-N.sock`. Callers: the supervisor, `postbud queue`, and other workers.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_MAX_LINE = 16 * 1024 * 1024
_TIMEOUT_SECONDS = 30.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """Answers requests by their `op`."""

    def __init__(self, path: Path, handlers: dict[str, Handler], on_bug: Callable[[str, BaseException], None]) -> None:
        self._path = path
        self._handlers = handlers
        self._on_bug = on_bug
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket; one left by a process that died is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_MAX_LINE)
        self._path.chmod(0o600)

    def stop(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            handler = self._handlers.get(request.get("op", ""))
            if handler is None:
                return {"error": "unknown op"}
            return await handler(request)
        except (ValueError, KeyError, AttributeError) as error:
            return {"error": f"bad request: {error}"}
        except Exception as error:  # noqa: BLE001 (the one handler of this loop: the caller hears no class names)
            self._on_bug("control request", error)
            return {"error": "internal error; see the log"}


async def call(path: Path, request: dict[str, Any], timeout_seconds: float = _TIMEOUT_SECONDS) -> dict[str, Any]:
    """Ask a worker.

    Raises:
        OSError: Nobody answers there.
    """
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_unix_connection(str(path), limit=_MAX_LINE)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
    if not line:
        raise ConnectionResetError("the worker closed the connection")
    answer: dict[str, Any] = json.loads(line)
    return answer


def sockets(run_folder: Path) -> list[Path]:
    """Give the sockets of the workers, by number."""
    return sorted(run_folder.glob("worker-*.sock"))
