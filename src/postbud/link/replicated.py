"""The directory of a console, in a worker: read from what the node's follower keeps on disk, and followed as that grows.

Same shape as `link.file.FileFollower`: `run`, `problem`. Looks twenty times a second, which costs two stats; reads and builds
in a thread, and puts whole directories in place on the event loop. Commands that come with the directory are handed on, once
each time they are read: whoever carries them out knows which it knows.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from postbud.link.records import Records
from postbud.link.replica import Directory, Replica
from postbud.link.sets import SetReader
from postbud.link.snapshot import DirectoryReader, News
from postbud.model.link import CommandRecord
from postbud.model.sealed import KEY_OCTETS

_LOOK_SECONDS = 0.05
_KEY_LOOK_SECONDS = 1.0
_SHOWN_PROBLEMS = 3


class ReplicaSource:
    """What a worker knows of the console's directory. `read` blocks."""

    def __init__(self, folder: Path, key_file: Path) -> None:
        """`folder` is DATA/replica; `key_file` holds the installation key."""
        self._reader = DirectoryReader(folder)
        self._sets = SetReader(folder)
        self._key_file = key_file
        self._key = _read_key(key_file)
        self._records = Records(self._sets, self._key)
        self.known = False  # whether there is a directory at all

    @property
    def directory(self) -> Directory:
        """The directory as of the last reading."""
        return self._records.directory

    @property
    def seq(self) -> int:
        """The number up to which it is the console's."""
        return self._reader.seq

    @property
    def problem(self) -> str | None:
        """What is wrong with it, for a person; None when nothing is."""
        found = list(self._records.problems.values())
        if not found:
            return None
        more = f" (and {len(found) - _SHOWN_PROBLEMS} more)" if len(found) > _SHOWN_PROBLEMS else ""
        return "; ".join(found[:_SHOWN_PROBLEMS]) + more

    def look(self) -> bool:
        """Whether there may be news of the directory."""
        return self._reader.look()

    def read(self) -> list[CommandRecord]:
        """Take what is new; give the commands that came with it."""
        news: News = self._reader.read()
        self.known = self.known or news.whole
        return self._records.apply(news)

    def look_at_sets(self) -> bool:
        """Whether there may be news of the address sets."""
        return self._sets.look()

    def read_sets(self) -> None:
        """Take what is new in the address sets."""
        self._sets.read()

    def read_key(self) -> bool:
        """See whether the installation key is another one now; if so, open everything anew."""
        key = _read_key(self._key_file)
        if key == self._key:
            return False
        self._key = key
        self._records.use_key(key)
        return True

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()


class ReplicaFollower:
    """Keeps a replica as the console says, as far as the node's follower heard it."""

    def __init__(
        self,
        source: ReplicaSource,
        replica: Replica,
        on_problem: Callable[[str], None],
        on_commands: Callable[[list[CommandRecord]], None],
        commands: list[CommandRecord],
    ) -> None:
        """`source` was read once, when the worker started; `commands` came with that reading."""
        self._source = source
        self._replica = replica
        self._on_problem = on_problem
        self._on_commands = on_commands
        self._first_commands = commands
        self._told: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the directory, for a person."""
        return self._source.problem

    async def run(self) -> None:
        """Follow until cancelled."""
        self._tell()
        if self._first_commands:
            self._on_commands(self._first_commands)
        loop = asyncio.get_running_loop()
        key_at = loop.time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if self._source.look():
                    await self._take()
                if self._source.look_at_sets():
                    await asyncio.to_thread(self._source.read_sets)
                if loop.time() >= key_at:
                    key_at = loop.time() + _KEY_LOOK_SECONDS
                    if await asyncio.to_thread(self._source.read_key):
                        self._install()
            except OSError as error:  # out of descriptors: the next look may do
                self._on_problem(str(error))

    async def _take(self) -> None:
        commands = await asyncio.to_thread(self._source.read)
        self._install()
        if commands:
            self._on_commands(commands)

    def _install(self) -> None:
        if self._source.directory is not self._replica.directory:
            self._replica.replace(self._source.directory)
        self._tell()

    def _tell(self) -> None:
        problem = self.problem
        if problem is not None and problem != self._told:
            self._on_problem(problem)
        self._told = problem


def _read_key(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == KEY_OCTETS else None
