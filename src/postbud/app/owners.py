"""Finds the worker that owns a message: ids carry the spool that made them; other workers are asked over their sockets."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from postbud.app.control import call, sockets
from postbud.model.ids import spool_of
from postbud.model.refusal import Refusal, Why
from postbud.model.returned import Heard, Returned


class Owners:
    """Hands a bounce to whoever accepted the message."""

    def __init__(self, run_folder: Path, own_spool: int, record: Callable[[Returned], Awaitable[Heard]]) -> None:
        self._run_folder = run_folder
        self._own_spool = own_spool
        self._record = record

    async def deliver(self, returned: Returned) -> Heard:
        """Have a bounce recorded by its owner; tell what became of it there.

        Raises:
            Refusal: TEMPORARY when a worker that may know it does not answer.
        """
        if spool_of(returned.id) == self._own_spool:
            return await self._record(returned)
        silent = False
        for path in sockets(self._run_folder):
            try:
                answer = await call(path, {"op": "returned", "report": msgspec.to_builtins(returned)})
            except (OSError, TimeoutError):
                silent = True
                continue
            silent = silent or "error" in answer
            heard = Heard(answer.get("heard", Heard.UNKNOWN.value))
            if heard is not Heard.UNKNOWN:
                return heard
        if silent:
            raise Refusal(Why.TEMPORARY, "the report could not be recorded; try again later")
        return await self._record(returned)  # the message may have been adopted by this worker
