"""Address sets on disk: 64-bit keyed hashes of mailboxes, one sorted file a set, which all workers map, and a log of changes.

`sets/index.json` names the files that belong together, and is replaced by renaming; `sets/*.set` are hashes of 8 octets each,
big endian, sorted; `sets/*.delta` are JSON lines of `model.link.SetChange` in order. Invariants: the files plus the delta are
what the console had at a number (changes that the files hold already do no harm); nothing is sorted in memory but a delta,
which is bounded. A look-up takes microseconds: a dictionary, then halves of a mapped file.
"""

import contextlib
import hashlib
import hmac
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from postbud.model.ids import AccountId
from postbud.model.link import SetChange

HASH_OCTETS = 8
PLATFORM = "platform"  # the set of the whole platform; an account's has the account's id for a name
_INDEX_NAME = "index.json"
_MERGE_ENTRIES = 20_000
_BUFFER_ENTRIES = 131_072
_ENCODE = msgspec.json.Encoder()
_DECODE = msgspec.json.Decoder(SetChange)


def hash_mailbox(key: bytes, mailbox_key: str) -> int:
    """Give the hash of a `Mailbox.key()`: the first 64 bits of HMAC-SHA256."""
    return int.from_bytes(hmac.digest(key, mailbox_key.encode(), hashlib.sha256)[:HASH_OCTETS], "big")


class Index(msgspec.Struct, frozen=True):
    """Which files belong together. `seq`: all changes up to it are in the files; `serial` makes names of files."""

    seq: int
    serial: int
    delta: str
    files: dict[str, str] = {}  # set → file


class SetFile:
    """One sorted file, mapped."""

    def __init__(self, path: Path) -> None:
        """Map it.

        Raises:
            OSError: It is not there.
        """
        self._count = path.stat().st_size // HASH_OCTETS
        self._map: mmap.mmap | bytes = b""
        if self._count:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, hashed: int) -> bool:
        wanted = hashed.to_bytes(HASH_OCTETS, "big")
        return self.octets(at := self.place(wanted), at + 1) == wanted

    def place(self, wanted: bytes) -> int:
        """Give the number of the first hash that is not before `wanted`."""
        octets, low, high = self._map, 0, self._count
        while low < high:
            middle = (low + high) // 2
            if octets[middle * HASH_OCTETS : (middle + 1) * HASH_OCTETS] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def octets(self, start: int, end: int) -> bytes:
        """Give the hashes from one number up to another, joined."""
        return self._map[start * HASH_OCTETS : end * HASH_OCTETS]


class SetLog:
    """The writer: one process has it. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sets"
        self._index = Index(0, 0, "0.delta")
        self._entries = 0
        self.seq: int | None = None  # None: nothing was loaded yet

    def open(self) -> None:
        """Go on where the last writer stopped; cut off what it tore, remove what it left."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        index = read_index(self._folder)
        if index is not None and (self._folder / index.delta).exists():
            self._index, self.seq = index, index.seq
            delta = self._folder / index.delta
            whole = 0
            for octets, change in _lines(delta):
                whole += octets
                self._entries += 1
                self.seq = max(self.seq, change.seq)
            if delta.stat().st_size > whole:
                os.truncate(delta, whole)
        self._sweep()

    def begin_load(self) -> "SetLoad":
        """Start to take all sets anew, page by page; what is there stays in force until `finish`."""
        return SetLoad(self._folder, self._index.serial + 1)

    def finish(self, load: "SetLoad", seq: int) -> None:
        """Put loaded sets in force, as of a number."""
        load.close()
        self._switch(Index(seq, load.serial, f"{load.serial}.delta", load.files))

    def append(self, changes: Iterable[SetChange], seq: int) -> None:
        """Add changes.

        Raises:
            OSError: The disk does not take them.
        """
        lines = [_ENCODE.encode(change) + b"\n" for change in changes]
        if lines:
            with (self._folder / self._index.delta).open("ab") as file:
                file.write(b"".join(lines))
            self._entries += len(lines)
        self.seq = max(self.seq or 0, seq)

    @property
    def is_long(self) -> bool:
        """Whether the delta should go into the files."""
        return self._entries >= _MERGE_ENTRIES

    def merge(self) -> None:
        """Write those sets anew that the delta changes: two sorted streams into one."""
        changed: dict[str, dict[int, bool]] = {}
        for _, change in _lines(self._folder / self._index.delta):
            changed.setdefault(change.name, {})[change.hash] = change.present
        serial = self._index.serial + 1
        files = dict(self._index.files)
        for name, entries in changed.items():
            old = SetFile(self._folder / files[name]) if name in files else None
            files[name] = _file_name(name, serial)
            with _new_file(self._folder / files[name]) as file:
                _write_merged(file, old, sorted(entries.items()))
        self._switch(Index(self.seq or 0, serial, f"{serial}.delta", files))

    def _switch(self, index: Index) -> None:
        _new_file(self._folder / index.delta).close()
        part = self._folder / f".{_INDEX_NAME}.{os.getpid()}"
        with _new_file(part) as file:
            file.write(_ENCODE.encode(index))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / _INDEX_NAME)
        self._index, self._entries, self.seq = index, 0, index.seq
        self._sweep()

    def _sweep(self) -> None:
        """Remove files that no index names; readers that mapped them keep them."""
        named = {_INDEX_NAME, self._index.delta, *self._index.files.values()}
        for path in self._folder.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)


class SetLoad:
    """Sets being loaded. Pages of one set come in order."""

    def __init__(self, folder: Path, serial: int) -> None:
        self.serial = serial
        self.files: dict[str, str] = {}
        self._folder = folder
        self._open: dict[str, BinaryIO] = {}

    def add(self, name: str, hashes: bytes) -> None:
        """Take the next page of a set."""
        file = self._open.get(name)
        if file is None:
            self.files[name] = _file_name(name, self.serial)
            file = self._open[name] = _new_file(self._folder / self.files[name])
        file.write(hashes)

    def close(self) -> None:
        """Have all on disk."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._open.clear()


class SetReader:
    """A reader: each worker has one. `look` costs two stats when nothing happened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sets"
        self._seen: tuple[int, int] = (0, 0)
        self._delta: Path | None = None
        self._offset = 0
        self._now: tuple[dict[str, SetFile], dict[str, dict[int, bool]]] = ({}, {})  # one value: others look meanwhile
        self.seq = 0

    def look(self) -> bool:
        """Whether there may be news."""
        try:
            state = (self._folder / _INDEX_NAME).stat()
            if (state.st_ino, state.st_mtime_ns) != self._seen:
                return True
            return self._delta is not None and self._delta.stat().st_size != self._offset
        except FileNotFoundError:
            return False

    def read(self) -> None:
        """Take what is new. Blocks for as long as reading a delta takes."""
        with contextlib.suppress(FileNotFoundError):  # replaced between two looks: the next one sees the new index
            state = (self._folder / _INDEX_NAME).stat()
            if (state.st_ino, state.st_mtime_ns) != self._seen:
                index = read_index(self._folder)
                if index is None:
                    return
                files = {name: SetFile(self._folder / file) for name, file in index.files.items()}
                delta = self._folder / index.delta
                changed, offset, seq = _changes(delta, 0)
                self._now, self._delta, self._offset = (files, changed), delta, offset
                self._seen, self.seq = (state.st_ino, state.st_mtime_ns), max(seq, index.seq)
            elif self._delta is not None:
                later, self._offset, seq = _changes(self._delta, self._offset)
                files, changed = self._now
                self._now = files, changed | {name: changed.get(name, {}) | entries for name, entries in later.items()}
                self.seq = max(seq, self.seq)

    def holds(self, name: str, hashed: int) -> bool:
        """Whether a set holds a hash."""
        files, changed = self._now
        entries = changed.get(name)
        if entries is not None and (present := entries.get(hashed)) is not None:
            return present
        file = files.get(name)
        return file is not None and hashed in file

    def is_empty(self, name: str) -> bool:
        """Whether a set holds nothing: then nobody need hash for it."""
        files, changed = self._now
        return name not in changed and not files.get(name)


class HashedSets:
    """Suppressions by hashes, as `link.replica.Suppressions` asks: the platform's set and the account's, each by its key."""

    def __init__(self, reader: SetReader, keys: Mapping[str, bytes]) -> None:
        """`keys` by the set: `platform`, or an account's id. A set whose key is not here cannot be looked into."""
        self._reader = reader
        self._keys = keys

    def hold(self, account: AccountId, mailbox_key: str) -> bool:
        """As `Suppressions.hold`."""
        return self._holds(PLATFORM, mailbox_key) or self._holds(account, mailbox_key)

    def _holds(self, name: str, mailbox_key: str) -> bool:
        if self._reader.is_empty(name):
            return False
        key = self._keys.get(name)
        return key is not None and self._reader.holds(name, hash_mailbox(key, mailbox_key))


def read_index(folder: Path) -> Index | None:
    """Read which files belong together; None when there is nothing yet."""
    try:
        return msgspec.json.decode((folder / _INDEX_NAME).read_bytes(), type=Index)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _file_name(name: str, serial: int) -> str:
    return f"{quote(name, safe='')}.{serial}.set"


def _new_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _lines(path: Path, offset: int = 0) -> Iterator[tuple[int, SetChange]]:
    """Give the whole lines of a delta with their octets; stop at what is none."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                change = _DECODE.decode(line)
            except msgspec.DecodeError:
                return
            yield len(line), change


def _changes(path: Path, offset: int) -> tuple[dict[str, dict[int, bool]], int, int]:
    changed: dict[str, dict[int, bool]] = {}
    seq = 0
    for octets, change in _lines(path, offset):
        offset += octets
        seq = max(seq, change.seq)
        changed.setdefault(change.name, {})[change.hash] = change.present
    return changed, offset, seq


def _write_merged(file: BinaryIO, old: SetFile | None, entries: list[tuple[int, bool]]) -> None:
    """Write a set's hashes with its changes, which are sorted, worked in: what lies between two changes goes as it is."""
    at = 0
    for hashed, present in entries:
        octets = hashed.to_bytes(HASH_OCTETS, "big")
        if old is not None:
            place = old.place(octets)
            _copy(file, old, at, place)
            at = place + (old.octets(place, place + 1) == octets)
        if present:
            file.write(octets)
    if old is not None:
        _copy(file, old, at, len(old))
    file.flush()
    os.fsync(file.fileno())


def _copy(file: BinaryIO, old: SetFile, start: int, end: int) -> None:
    file.writelines(old.octets(first, min(first + _BUFFER_ENTRIES, end)) for first in range(start, end, _BUFFER_ENTRIES))
