"""Stage 7, ship: events in the order of their commits, as JSON lines in rotated files (a standalone relay's consumer).

The file is the high-water mark: each line carries `seq`, a restart cuts off what is torn (by a kill, at the end; by power loss,
from the first line that is none) and goes on after the last whole line. Before the spool forgets events the file is synced. So
neither loses an event or writes one twice; consumers that do see one twice know it by its `id`.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from postbud.model.refusal import Refusal

_POLL_SECONDS = 0.2
_PAGE = 1000
_PRUNE_SECONDS = 60.0

ReadEvents = Callable[[int, int], Awaitable[list[tuple[int, bytes]]]]
PruneEvents = Callable[[int, float], Awaitable[int]]


class _Mark(msgspec.Struct):
    """The part of a line that tells where we are."""

    seq: int
    spool: int


@dataclass(frozen=True, slots=True)
class ShipSettings:
    """Where the lines go and how many are kept."""

    folder: Path
    name: str
    spool_id: int
    file_octets: int
    files: int
    keep_seconds: float


class FileShipper:
    """Writes the events of one spool."""

    def __init__(self, settings: ShipSettings, read: ReadEvents, prune: PruneEvents, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._read = read
        self._prune = prune
        self._clock = clock
        self._path = settings.folder / f"{settings.name}.jsonl"
        self._one = asyncio.Lock()
        self._recovered = False
        self.seq = 0
        self.shipped = 0

    async def run(self, on_problem: Callable[[str], None]) -> None:
        """Ship until cancelled; a disk that does not take lines is tried again, and mail goes on."""
        prune_at = 0.0
        while True:
            try:
                moved = await self.ship_once()
                if self._clock() >= prune_at:
                    prune_at = self._clock() + _PRUNE_SECONDS
                    await asyncio.to_thread(self._sync)
                    await self._prune(self.seq, self._clock() - self._settings.keep_seconds)
            except (OSError, Refusal) as error:
                on_problem(f"events wait: {error}")
                prune_at = max(prune_at, self._clock() + 1.0)
                moved = 0
            if moved < _PAGE:
                await asyncio.sleep(_POLL_SECONDS)

    async def ship_once(self) -> int:
        """Ship one page; give how many events it had. One at a time, whoever calls: two would write the same page twice."""
        async with self._one:
            if not self._recovered:
                self.seq = await asyncio.to_thread(self._recover)
                self._recovered = True
            page = await self._read(self.seq, _PAGE)
            if page:
                await asyncio.shield(self._write_page(page))
            return len(page)

    async def _write_page(self, page: list[tuple[int, bytes]]) -> None:
        await asyncio.to_thread(self._write, page)
        self.seq = page[-1][0]
        self.shipped += len(page)

    def _write(self, page: list[tuple[int, bytes]]) -> None:
        self._rotate_if_full()
        lines = b"".join(b'{"seq":%d,"spool":%d,%b\n' % (seq, self._settings.spool_id, event[1:]) for seq, event in page)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            start = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, lines)
            except OSError:
                os.ftruncate(descriptor, start)  # half a page must not stay: its second try would double it
                raise
        finally:
            os.close(descriptor)

    def _sync(self) -> None:
        """Have what was written on disk: the spool is about to forget it, or nobody will look at this file again."""
        for path in (self._path, self._settings.folder):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _rotate_if_full(self) -> None:
        """Put a full file aside, before the next page: what fails here fails with nothing written, and is tried again."""
        if not self._path.exists() or self._path.stat().st_size < self._settings.file_octets:
            return
        self._sync()
        self._path.rename(self._settings.folder / f"{self._settings.name}.{self.seq:016d}.jsonl")
        for old in self._rotated()[: -self._settings.files]:
            old.unlink(missing_ok=True)

    def _rotated(self) -> list[Path]:
        return rotated(self._settings.folder, self._settings.name)

    def _recover(self) -> int:
        self._settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return last_shipped(self._settings.folder, self._settings.name, self._settings.spool_id)


def rotated(folder: Path, name: str) -> list[Path]:
    """Give the rotated files of a name, oldest first."""
    return sorted(folder.glob(f"{name}.{'[0-9]' * 16}.jsonl"))


def last_shipped(folder: Path, name: str, spool_id: int) -> int:
    """Cut off what is torn; give the last number that was written for a spool, 0 when none was."""
    current = folder / f"{name}.jsonl"
    for path in (current, *reversed(rotated(folder, name))):
        if not path.exists():
            continue
        whole, mark = _whole(path)
        if path == current and whole < path.stat().st_size:
            os.truncate(path, whole)
        if mark is not None:
            return mark.seq if mark.spool == spool_id else 0
    return 0


def _whole(path: Path) -> tuple[int, _Mark | None]:
    """Give where the whole lines of a file end, and the last one's mark. What stands behind a line that is none is not ours."""
    end = 0
    mark: _Mark | None = None
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                mark = msgspec.json.decode(line, type=_Mark)
            except msgspec.DecodeError:
                break
            end += len(line)
    return end, mark


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
