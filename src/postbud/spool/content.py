"""Content on its way in, and large bodies in their files.

Owns `incoming/` (bodies being received, nobody's yet) and `content/` (bodies that a committed row names). A content stays in
memory while it is small and the worker has room; above that its body is streamed to a file by a thread, scanned on the way.
Before the commit that names a body file: file synced, renamed from `incoming/` to `content/`, folder synced (once for all
of a group, by the writer). Does not know messages. A file in neither a row nor a writer's hand is an orphan.
"""

import asyncio
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from postbud.mime.body import BodyScanner, scan_body
from postbud.mime.header import MAX_SECTION_OCTETS, split_content
from postbud.model.content import BodyFacts, Content
from postbud.model.refusal import Refusal, Why
from postbud.spool.disk import is_full, is_short, sync_folder
from postbud.spool.failpoint import fp
from postbud.spool.values import SpoolBroken, SpoolSettings, no_space

_KIB = 1024
_BUFFER_OCTETS = 256 * _KIB  # a writer asks to be drained above this
_STEP = 256 * _KIB
_SYNC_EVERY = 8 * _KIB * _KIB  # dirty pages never pile up, so that nobody's fsync waits for another's 40 MiB
_EARLY_OCTETS = 16 * _KIB  # smaller contents stay in memory also when the worker is short of it
_SCAN_ON_LOOP = 256 * _KIB


class BodyFile:
    """A body being streamed to a file. Its methods run on threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._removed = False
        self._scanner = BodyScanner()
        self._unsynced = 0
        self.crc = 0

    def append(self, octets: bytes) -> None:
        """Write and scan a piece."""
        with self._lock:
            if self._removed:
                return
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            view = memoryview(octets)
            for start in range(0, len(octets), _STEP):
                piece = view[start : start + _STEP]
                _write_all(self._fd, piece)
                self.crc = zlib.crc32(piece, self.crc)
                self._scanner.feed(bytes(piece))
            self._unsynced += len(octets)
            if self._unsynced >= _SYNC_EVERY:
                os.fdatasync(self._fd)
                self._unsynced = 0

    def end(self) -> BodyFacts:
        """Close the file; give what the scan told."""
        with self._lock:
            self._close()
            return self._scanner.facts()

    def remove(self) -> None:
        """Close and delete, as often as one likes. A file that was renamed into `content/` is out of reach."""
        with self._lock:
            self._removed = True
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class ContentStore:
    """The two folders, the threads that write there, and the memory that all writers share."""

    def __init__(self, folder: Path, settings: SpoolSettings, new_name: Callable[[], str]) -> None:
        """Make the folders when missing."""
        self.incoming = folder / "incoming"
        self.lasting = folder / "content"
        self.settings = settings
        self.pool = ThreadPoolExecutor(4, "spool-content")
        self.in_memory_octets = 0
        self._new_name = new_name
        self.on_error: Callable[[str], None] = lambda _why: None  # hears of a disk that fails
        self._receiving: dict[str, BodyFile] = {}
        for path in (self.incoming, self.lasting):
            path.mkdir(mode=0o700, exist_ok=True)
        self._counting = threading.Lock()
        with os.scandir(self.lasting) as files:
            self.octets = sum(file.stat().st_size for file in files)  # of the files in `content/`
        sync_folder(folder)

    def new_file(self) -> BodyFile:
        """Name a new file in `incoming/`; the disk is not touched yet."""
        file = BodyFile(self.incoming / self._new_name())
        self._receiving[file.path.name] = file
        return file

    def forget(self, file: BodyFile) -> None:
        """Delete a file that no commit named."""
        self._receiving.pop(file.path.name, None)
        self.pool.submit(file.remove)

    def crowded(self) -> bool:
        """Tell whether contents in memory take more than their share."""
        return self.in_memory_octets > self.settings.contents_in_memory_octets

    def refusal(self, error: OSError) -> Refusal:
        """Turn a failed write into what the peer hears; anything but a full disk or a shortage breaks the spool."""
        if is_full(error):
            return no_space(f"content: {error}")
        if is_short(error):
            return Refusal(Why.TEMPORARY, "Too busy, try again later", f"content: {error}")
        self.on_error(f"content: {error}")
        return SpoolBroken(f"content: {error}")

    def make_lasting(self, path: Path) -> tuple[str, int]:
        """Sync a body file and rename it into `content/`; give its name and checksum. The folder is the writer's to sync.

        Raises:
            OSError: The disk failed or is full.
        """
        known = self._receiving.pop(path.name, None)
        name = path.name
        if path.parent != self.incoming:  # another message's file, or a caller's own: it stays where it is
            name = self._new_name()
            path = Path(shutil.copyfile(path, self.incoming / name))
        crc = known.crc if known is not None else checksum_of_file(path)
        fp("content_before_fsync")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            octets = os.fstat(fd).st_size
        finally:
            os.close(fd)
        path.rename(self.lasting / name)
        self._count(octets)
        fp("content_after_rename")
        return name, crc

    def delete(self, names: Iterable[str]) -> None:
        """Delete lasting files whose rows are gone."""
        for name in names:
            with suppress(FileNotFoundError):
                self._remove_lasting(self.lasting / name)

    def link(self, path: Path) -> None:
        """Give a file of another spool a second name in `content/`, if it exists and has none there."""
        target = self.lasting / path.name
        if path.exists() and not target.exists():
            os.link(path, target)
            self._count(target.stat().st_size)

    def sweep(self, named: Callable[[str], bool] | None, age_seconds: float) -> int:
        """Delete orphans older than an age; without `named`, those in `incoming/` only. Give their number."""
        before = time.time() - age_seconds
        orphans = [path for path in self.incoming.iterdir() if path.name not in self._receiving]
        if named is not None:
            orphans += [path for path in self.lasting.iterdir() if not named(path.name)]
        swept = 0
        for path in orphans:
            try:
                if path.stat().st_mtime > before:
                    continue
                if path.parent == self.lasting:
                    self._remove_lasting(path)
                else:
                    path.unlink()
                swept += 1
            except FileNotFoundError:
                continue
        return swept

    def _remove_lasting(self, path: Path) -> None:
        octets = path.stat().st_size
        path.unlink()
        self._count(-octets)

    def _count(self, octets: int) -> None:
        with self._counting:
            self.octets += octets

    def close(self) -> None:
        """Wait for the threads."""
        self.pool.shutdown()


class ContentWriter:
    """Takes one content as it arrives. Used by one task; `discard` may be called at any time and as often as one likes."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._pieces: list[bytes] = []
        self._held = 0
        self._try_again_at = 0
        self._header = b""
        self._file: BodyFile | None = None
        self._refusal: Refusal | None = None

    def write(self, chunk: bytes) -> None:
        """Take octets: no dot-stuffing, CRLF line ends. After a failure they are dropped; `drain` and `finish` tell it."""
        if self._refusal is not None:
            return
        self._pieces.append(chunk)
        self._held += len(chunk)
        self._store.in_memory_octets += len(chunk)
        if self._file is None and self._held > _EARLY_OCTETS and self._held >= self._try_again_at and self._is_large():
            self._to_file()

    @property
    def needs_drain(self) -> bool:
        """Whether the sender should be paused until `drain` is done."""
        return self._file is not None and self._held >= _BUFFER_OCTETS

    async def drain(self) -> None:
        """Write what waits for the file.

        Raises:
            Refusal: NO_SPACE, or SpoolBroken when the disk fails.
        """
        while self._refusal is None and self._file is not None and self._pieces:
            octets = self._take()
            try:
                await asyncio.get_running_loop().run_in_executor(self._store.pool, self._file.append, octets)
            except OSError as error:
                self._fail(self._store.refusal(error))
        if self._refusal is not None:
            raise self._refusal

    async def finish(self) -> Content:
        """Give the whole content. A body in a file is nobody's until a commit names it: `discard` still deletes it.

        Raises:
            Refusal: TOO_BIG or BAD_CONTENT when no header section can be told; NO_SPACE; SpoolBroken.
        """
        await self.drain()
        loop = asyncio.get_running_loop()
        if self._file is not None:
            facts = await loop.run_in_executor(self._store.pool, self._file.end)
            return Content(self._header, self._file.path, facts)
        octets = self._take()
        split = split_content(octets)
        if split is None or len(split[0]) > MAX_SECTION_OCTETS:
            self._fail(_no_header(len(octets)))
            raise _no_header(len(octets))
        header, start = split
        body = octets[start:]
        if len(body) <= _SCAN_ON_LOOP:
            return Content(header, body, scan_body(body))
        return Content(header, body, await loop.run_in_executor(self._store.pool, scan_body, body))

    def discard(self) -> None:
        """Let go of memory and file. What a commit has named by then stays."""
        self._take()
        if self._file is not None:
            self._store.forget(self._file)
            self._file = None

    def _is_large(self) -> bool:
        return self._held > self._store.settings.content_in_memory_octets or self._store.crowded()

    def _to_file(self) -> None:
        octets = b"".join(self._pieces)
        split = split_content(octets, final=False)
        if split is None or len(split[0]) > MAX_SECTION_OCTETS:
            if len(octets) > MAX_SECTION_OCTETS:
                self._fail(_no_header(len(octets)))
            self._try_again_at = 2 * self._held
            return
        self._header, start = split
        self._take()
        self._pieces.append(octets[start:])
        self._held = len(octets) - start
        self._store.in_memory_octets += self._held
        self._file = self._store.new_file()

    def _take(self) -> bytes:
        octets = b"".join(self._pieces)
        self._pieces.clear()
        self._store.in_memory_octets -= self._held
        self._held = 0
        return octets

    def _fail(self, refusal: Refusal) -> None:
        self.discard()
        self._refusal = refusal


def checksum_of_file(path: Path) -> int:
    """Give the CRC-32 of a file's octets."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


def _no_header(octets: int) -> Refusal:
    if octets > MAX_SECTION_OCTETS:
        return Refusal(Why.TOO_BIG, "Header section is too long", "header section longer than 256 KiB")
    return Refusal(Why.BAD_CONTENT, "No header section", "content without an empty line")


def _write_all(fd: int, octets: memoryview) -> None:
    while octets:
        octets = octets[os.write(fd, octets) :]
