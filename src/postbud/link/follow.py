"""The follower: one a node, in its supervisor. Long polls the console; keeps directory and address sets on disk for workers.

Owns the asking and its patience; what lies on disk is `snapshot`'s and `sets`'. Invariants: while the console is silent all
stays as it is, and mail goes on; a directory is replaced as a whole or not at all; one without any account never replaces one
that has some (an empty database behind the same address is a mistake of somebody's, and would stop everybody's mail).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from postbud.link.sets import SetLog
from postbud.link.snapshot import DirectoryLog, Line
from postbud.model.link import WAIT_SECONDS, SetChanges, SetPage
from postbud.net.http import LinkClient, LinkDown, LinkRefused

_PATIENCE_SECONDS = 0.2
_PATIENCE_MAX_SECONDS = 5.0
_AFTER_REFUSAL_SECONDS = 15.0

Say = Callable[[str, str], None]


class _Page(msgspec.Struct, frozen=True):
    """A `model.link.DirectoryPage` whose changes stay as they came: some may be of kinds that this version does not know."""

    seq: int
    changes: tuple[msgspec.Raw, ...] = ()
    more: bool = False
    restart: bool = False
    monitor_ok_at: datetime | None = None


@dataclass(slots=True)
class Patience:
    """How long to wait after a failure: longer each time, never the same for two nodes."""

    dice: Callable[[], float]
    seconds: float = _PATIENCE_SECONDS

    def next(self) -> float:
        """Give the next wait."""
        wait, self.seconds = self.seconds, min(self.seconds * 2, _PATIENCE_MAX_SECONDS)
        return wait * (0.5 + self.dice() / 2)

    def restore(self) -> None:
        """Begin anew: it went well."""
        self.seconds = _PATIENCE_SECONDS


class Follower:
    """Follows one console. `say(level, text)` tells the log, once a change of state."""

    def __init__(
        self, client: LinkClient, folder: Path, clock: Callable[[], float], dice: Callable[[], float], say: Say
    ) -> None:
        """`folder` is DATA/replica. Nothing is read or asked before `run`."""
        self._client = client
        self._clock = clock
        self._dice = dice
        self._say = say
        self._directory = DirectoryLog(folder)
        self._sets = SetLog(folder)
        self.known = asyncio.Event()  # set once there is a directory on disk
        self.problem: str | None = None
        self.monitor_ok_at: datetime | None = None

    @property
    def seq(self) -> int:
        """The number up to which the directory on disk is the console's."""
        return self._directory.seq or 0

    async def run(self) -> None:
        """Follow until cancelled."""
        await asyncio.to_thread(self._directory.open)
        await asyncio.to_thread(self._sets.open)
        if self._directory.seq is not None:
            self.known.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(self.follow_directory, "the directory"))
            group.create_task(self._keep(self.follow_sets, "address sets"))

    async def _keep(self, once: Callable[[], Awaitable[None]], what: str) -> None:
        patience = Patience(self._dice)
        trouble = ""
        while True:
            try:
                await once()
            except LinkRefused as error:
                trouble, wait = self._failed(trouble, f"{what}: {error}"), _AFTER_REFUSAL_SECONDS
            except (LinkDown, OSError, _Unbelievable) as error:
                trouble, wait = self._failed(trouble, f"{what}: {error}"), patience.next()
            else:
                patience.restore()
                if trouble:
                    self._say("info", f"{what}: the console is heard again")
                trouble, self.problem = "", None
                continue
            await asyncio.sleep(wait)

    def _failed(self, before: str, why: str) -> str:
        self.problem = why
        if why != before:
            self._say("warning", why)
        return why

    async def follow_directory(self) -> None:
        """Ask once for what is new, and have it on disk.

        Raises:
            LinkDown, LinkRefused: As the client.
            OSError: The disk does not take it.
        """
        log = self._directory
        if log.seq is None:
            await self._begin_anew()
            return
        page = await self._page(log.seq, WAIT_SECONDS)
        if page.restart:
            self._say("warning", "the console begins anew: its whole directory is taken again")
            await self._begin_anew()
            return
        self.monitor_ok_at = page.monitor_ok_at
        if page.changes:
            await asyncio.to_thread(log.append, _lines(page), page.seq)
        else:
            log.seq = max(log.seq, page.seq)
        if log.is_long:
            await asyncio.to_thread(log.compact, self._clock())

    async def _begin_anew(self) -> None:
        lines: list[bytes] = []
        seq, more = 0, True
        while more:
            page = await self._page(seq, 0)
            if page.restart and seq:
                raise LinkDown("the console began anew while its directory was being read")
            lines += _lines(page)
            more, seq = page.more, page.seq
        if not _has_accounts(lines) and _has_accounts(await asyncio.to_thread(self._directory.lines)):
            raise _Unbelievable("the console has no account any more; going on with the directory from before")
        await asyncio.to_thread(self._directory.restart, lines, seq)
        self.known.set()

    async def _page(self, since: int, wait: int) -> _Page:
        return await self._client.get("/link/directory", _Page, {"since": since, "wait": wait}, wait_seconds=wait)

    async def follow_sets(self) -> None:
        """Ask once for changes of address sets, and have them on disk.

        Raises:
            LinkDown, LinkRefused: As the client.
            OSError: The disk does not take them.
        """
        log = self._sets
        if log.seq is None:
            await self._load_sets()
            return
        query = {"since": log.seq, "wait": WAIT_SECONDS}
        changes = await self._client.get("/link/sets", SetChanges, dict(query), wait_seconds=WAIT_SECONDS)
        if changes.restart or (log.seq == 0 and changes.names):  # since=0 gives names only
            await self._load_sets()
            return
        await asyncio.to_thread(log.append, changes.changes, changes.seq)
        if log.is_long:
            await asyncio.to_thread(log.merge)

    async def _load_sets(self) -> None:
        """Take all sets whole. Changes since the first page are followed again: they do no harm to pages that had them."""
        start = await self._client.get("/link/sets", SetChanges, {"since": 0, "wait": 0})
        load = self._sets.begin_load()
        for name in start.names:
            after: int | None = None
            while True:
                query = {} if after is None else {"after": after}
                page = await self._client.get(f"/link/sets/{quote(name, safe='')}", SetPage, dict(query))
                await asyncio.to_thread(load.add, name, page.hashes)
                if page.next is None:
                    break
                if after is not None and page.next <= after:
                    raise LinkDown(f"set {name}: its pages do not come in order")
                after = page.next
        await asyncio.to_thread(self._sets.finish, load, start.seq)


class _Unbelievable(Exception):  # noqa: N818 (names what was answered)
    """An answer that is well-formed and cannot be meant."""


def _lines(page: _Page) -> list[bytes]:
    return [octets if b"\n" not in (octets := bytes(raw)) else msgspec.json.format(octets, indent=-1) for raw in page.changes]


def _has_accounts(lines: list[bytes]) -> bool:
    return any(msgspec.json.decode(line, type=Line).record.kind == "account" for line in lines)
