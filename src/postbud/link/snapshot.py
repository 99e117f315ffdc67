"""The directory on disk, between the one follower that writes it and the workers that read it: a snapshot and a log of changes.

`directory.snapshot` and `directory.delta` are JSON lines: a header, then one `model.link.Change` a line, as the console sent it
(of a newer console's kinds a reader makes nothing). The delta only grows, until it goes into a new snapshot; both are replaced
by renaming, the snapshot first. Invariants: what a reader has seen up to a number is whole; a delta that goes with another
snapshot (`epoch`) is never mixed into this one; a torn last line is no line yet.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from postbud.model.link import Change

SNAPSHOT_NAME = "directory.snapshot"
DELTA_NAME = "directory.delta"
_COMPACT_OCTETS = 1024 * 1024

Key = tuple[str, str]


class Header(msgspec.Struct, frozen=True):
    """The first line of both files. `seq`: all changes up to it are in the snapshot; of a delta: where it began."""

    epoch: int
    seq: int


class _Record(msgspec.Struct, frozen=True):
    """What the log itself must know of a record, whatever its kind."""

    kind: str
    id: str = ""
    what: str = ""
    expires_at: datetime | None = None


class Line(msgspec.Struct, frozen=True):
    """What the log itself must know of a change."""

    seq: int
    record: _Record

    @property
    def key(self) -> Key:
        """Kind and id of what changed."""
        return (self.record.what if self.is_gone else self.record.kind), self.record.id

    @property
    def is_gone(self) -> bool:
        """Whether the record was removed."""
        return self.record.kind == "gone"

    def is_expired(self, now: float) -> bool:
        """Whether it means nothing any more (commands)."""
        return self.record.expires_at is not None and self.record.expires_at.timestamp() < now


_ENCODE = msgspec.json.Encoder()
_LINE = msgspec.json.Decoder(Line)
_CHANGE = msgspec.json.Decoder(Change)


class DirectoryLog:
    """The writer: one process has it."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read before `open`."""
        self._snapshot = folder / SNAPSHOT_NAME
        self._delta = folder / DELTA_NAME
        self._epoch = 0
        self._delta_octets = 0
        self._snapshot_octets = 0
        self.seq: int | None = None  # None: there is no directory yet

    def open(self) -> None:
        """Go on where the last writer stopped; cut off what it tore. Blocks."""
        self._snapshot.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with self._snapshot.open("rb") as file:
                header = msgspec.json.decode(file.readline(), type=Header)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        self._epoch, self.seq = header.epoch, header.seq
        self._snapshot_octets = self._snapshot.stat().st_size
        self._mend_delta(header)

    def _mend_delta(self, header: Header) -> None:
        lines = _Lines(self._delta)
        if lines.header is None or lines.header.epoch != header.epoch:
            lines.close()
            self._begin_delta(header.seq)
            return
        for _, line in lines.take():
            self.seq = max(self.seq or 0, line.seq)
        self._delta_octets = lines.offset
        lines.close()
        if self._delta.stat().st_size > lines.offset:
            os.truncate(self._delta, lines.offset)

    def append(self, changes: Iterable[bytes], seq: int) -> None:
        """Add changes, each as JSON on one line; in force for readers when this returns. Blocks.

        Raises:
            OSError: The disk does not take them; nothing of them stays.
        """
        octets = b"".join([change + b"\n" for change in changes])
        descriptor = os.open(self._delta, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.write(descriptor, octets) != len(octets):
                os.ftruncate(descriptor, self._delta_octets)
                raise OSError("the disk took a part only")
        finally:
            os.close(descriptor)
        self._delta_octets += len(octets)
        self.seq = max(self.seq or 0, seq)

    def lines(self) -> list[bytes]:
        """Give all changes that are on disk, those that others replaced too. Blocks."""
        return [octets for octets, _ in _whole(self._snapshot, self._delta)]

    @property
    def is_long(self) -> bool:
        """Whether the delta should go into a new snapshot."""
        return self._delta_octets > max(_COMPACT_OCTETS, self._snapshot_octets // 2)

    def compact(self, now: float) -> None:
        """Put snapshot and delta into one new snapshot, without what is gone or expired. Blocks.

        Raises:
            OSError: The disk does not take it; all stays as it was.
        """
        kept: dict[Key, bytes] = {}
        for octets, line in _whole(self._snapshot, self._delta):
            kept.pop(line.key, None)
            if not line.is_gone and not line.is_expired(now):
                kept[line.key] = octets
        self._replace(kept.values(), self.seq or 0)

    def restart(self, changes: Iterable[bytes], seq: int) -> None:
        """Begin anew with a whole directory: the console's numbers are others now, or this is the first. Blocks.

        Raises:
            OSError: The disk does not take it; all stays as it was.
        """
        self._epoch += 1
        self._replace(changes, seq)
        self.seq = seq

    def _replace(self, changes: Iterable[bytes], seq: int) -> None:
        octets = write_whole(self._snapshot, _ENCODE.encode(Header(self._epoch, seq)), changes)
        self._snapshot_octets = octets
        self._begin_delta(seq)

    def _begin_delta(self, seq: int) -> None:
        self._delta_octets = write_whole(self._delta, _ENCODE.encode(Header(self._epoch, seq)), ())


def write_whole(path: Path, header: bytes, changes: Iterable[bytes]) -> int:
    """Put a new file of lines in a path's place (mode 0600, synced); give its octets."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + b"\n")
            for change in changes:
                file.write(change + b"\n")
            file.flush()
            os.fsync(file.fileno())
            octets = file.tell()
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return octets


def _whole(snapshot: Path, delta: Path) -> list[tuple[bytes, Line]]:
    lines = _Lines(snapshot)
    changes = lines.take()
    header = lines.header
    lines.close()
    if header is None:
        return []
    later = _Lines(delta)
    if later.header is not None and later.header.epoch == header.epoch:
        changes += [(octets, line) for octets, line in later.take() if line.seq > header.seq]
    later.close()
    return changes


class _Lines:
    """The whole lines of one file, read as it grows."""

    def __init__(self, path: Path) -> None:
        """Open it; `header` is None when there is no file, or none of ours."""
        self.header: Header | None = None
        self.offset = 0
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            return
        line = self._file.readline()
        if line.endswith(b"\n"):
            try:
                self.header = msgspec.json.decode(line, type=Header)
                self.offset = len(line)
            except msgspec.DecodeError:
                pass

    @property
    def identity(self) -> tuple[int, int, int]:
        """Tell device and number of the open file, and how long it is."""
        if self._file is None:
            return 0, 0, 0
        state = os.fstat(self._file.fileno())
        return state.st_dev, state.st_ino, state.st_size

    def take(self) -> list[tuple[bytes, Line]]:
        """Give the lines that are whole by now and were not given before; stop at what is no line of ours."""
        changes: list[tuple[bytes, Line]] = []
        if self._file is None or self.header is None:
            return changes
        self._file.seek(self.offset)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                changes.append((line[:-1], _LINE.decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                break
            self.offset += len(line)
        return changes

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(slots=True)
class News:
    """What a reader found: changes in order; `whole`: they are the whole directory, and what was known before is void."""

    changes: list[Change] = field(default_factory=list)
    whole: bool = False


class DirectoryReader:
    """A reader: each worker has one. `look` costs a stat when nothing happened."""

    def __init__(self, folder: Path) -> None:
        self._snapshot = folder / SNAPSHOT_NAME
        self._delta = folder / DELTA_NAME
        self._lines: _Lines | None = None
        self._epoch = -1
        self.seq = 0

    def look(self) -> bool:
        """Whether there may be news."""
        try:
            state = self._delta.stat()
        except FileNotFoundError:
            return False
        if self._lines is None:
            return True
        device, number, _ = self._lines.identity
        return (state.st_dev, state.st_ino) != (device, number) or state.st_size != self._lines.offset

    def read(self) -> News:
        """Give what is new. Blocks; a first reading, or one after a restart, gives the whole directory."""
        if self._lines is not None and self._is_current():
            return News(self._later())
        self.close()
        lines = _Lines(self._delta)  # the delta first: were it the newer of the two, changes between them would be missed
        whole = _Lines(self._snapshot)
        if lines.header is None or whole.header is None:
            lines.close()
            whole.close()
            return News()
        self._lines = lines
        news = News(whole=True)
        if whole.header.epoch == self._epoch and whole.header.seq <= self.seq:
            news = News()  # only compacted: all of it is known
        else:
            news.changes = _known(whole.take())
            self._epoch, self.seq = whole.header.epoch, whole.header.seq
        whole.close()
        if lines.header.epoch == self._epoch:
            news.changes += self._later()
        return news

    def close(self) -> None:
        """Close the file that is followed."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _is_current(self) -> bool:
        assert self._lines is not None
        try:
            state = self._delta.stat()
        except FileNotFoundError:
            return True
        device, number, octets = self._lines.identity
        return (state.st_dev, state.st_ino) == (device, number) and octets >= self._lines.offset

    def _later(self) -> list[Change]:
        assert self._lines is not None
        if self._lines.header is None or self._lines.header.epoch != self._epoch:
            return []
        found = [(octets, line) for octets, line in self._lines.take() if line.seq > self.seq]
        if found:
            self.seq = found[-1][1].seq
        return _known(found)


def _known(lines: Iterable[tuple[bytes, Line]]) -> list[Change]:
    """Give those changes whose kind this version knows."""
    changes = []
    for octets, _ in lines:
        try:
            changes.append(_CHANGE.decode(octets))
        except msgspec.DecodeError:
            continue
    return changes
