"""Which commands this spool has carried out, until they expire: rows of table `meta`, each with the event that answers it."""

from functools import partial

import apsw

from postbud.spool.sqlite import Spool

_PREFIX = "command "


class Marks:
    """The memory of one spool for commands."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    async def load(self, now: float) -> dict[str, float]:
        """Give the commands that were carried out, with when they expire; forget what expired.

        Raises:
            Refusal: The spool does not take it now.
        """
        return await self._spool.run(partial(_load, now))

    async def answer(self, command: str, expires_at: float, event: bytes, now: float) -> None:
        """Remember a command and write the event that answers it, in one commit.

        Raises:
            Refusal: The spool does not take it now.
        """
        await self._spool.run(partial(self._answer, command, expires_at, event, now))

    def _answer(self, command: str, expires_at: float, event: bytes, now: float, connection: apsw.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (f"{_PREFIX}{command}", int(expires_at) + 1)
        )
        self._spool.statements.add_event(now, event)


def _load(now: float, connection: apsw.Connection) -> dict[str, float]:
    connection.execute("DELETE FROM meta WHERE name GLOB ? AND value < ?", (f"{_PREFIX}*", int(now)))
    rows = connection.execute("SELECT name, value FROM meta WHERE name GLOB ?", (f"{_PREFIX}*",))
    return {name.removeprefix(_PREFIX): float(value) for name, value in rows}
