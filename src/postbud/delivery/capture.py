"""Sandbox mail: its content goes to the console instead of to a site, and then its deliveries are `captured` (flow 7).

A stage 5 of its own, beside the lanes: deliveries come here from the scheduler and go back to it, like those of a lane. Without
a console (`client` None) they are captured as they are. Invariants: nothing of it ever reaches a site; a console that is silent
costs no message: one is deferred for each time that it was asked, the others wait untouched.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from postbud.delivery.attempt import Attempts
from postbud.delivery.lane import Active
from postbud.delivery.lanes import Owner
from postbud.delivery.record import Recorder
from postbud.model.content import Content
from postbud.model.delivery import Message, State
from postbud.model.ids import MessageId
from postbud.model.outcome import Deferred, Scope
from postbud.net.http import LinkClient, LinkDown, LinkRefused
from postbud.spool.values import Batch, Damaged, Unknown

_REST_SECONDS = 5.0
_REST_MAX_SECONDS = 30.0
_CHUNK_OCTETS = 128 * 1024
_NO_RIGHT = frozenset({401, 403})  # about the node, not about the message


class Captures:
    """Captures what is pushed, one message at a time."""

    def __init__(self, attempts: Attempts, recorder: Recorder, client: LinkClient | None, clock: Callable[[], float]) -> None:
        """`recorder` has the schedule of captures: a console comes back sooner than a site."""
        self._attempts = attempts
        self._recorder = recorder
        self._client = client
        self._clock = clock
        self._waiting: dict[MessageId, list[Active]] = {}
        self._serving = False
        self._rest_until = 0.0
        self._rest_seconds = _REST_SECONDS

    def push(self, active: Active, owner: Owner) -> None:
        """Take a due delivery."""
        self._waiting.setdefault(active.message.id, []).append(active)
        if not self._serving:
            self._serving = True
            owner.spawn(self._serve(owner), "capturing sandbox mail")

    async def _serve(self, owner: Owner) -> None:
        try:
            while self._waiting and not owner.stopping:
                if (rest := self._rest_until - self._clock()) > 0:
                    await asyncio.sleep(min(rest, 1.0))
                    continue
                batch = self._waiting.pop(next(iter(self._waiting)))
                batch = [active for active in batch if not active.cancelled]
                for active in batch:
                    active.leased, active.recorded = True, False
                await self._capture(batch, owner)
        finally:
            self._serving = False

    async def _capture(self, batch: list[Active], owner: Owner) -> None:
        if not batch:
            return
        try:
            await self._settle(batch)
        except BaseException:
            owner.after_bug(batch)
            raise
        owner.done(batch)

    async def _settle(self, batch: list[Active]) -> None:
        message = batch[0].message
        held_by = self._attempts.standing(message)
        if held_by is not None:
            await self._attempts.hold(batch, held_by, "sending is stopped for this account, server or credential")
            return
        try:
            reason = await self._hand_over(message)
        except (Damaged, Unknown):  # quarantined with its event by the spool
            for active in batch:
                active.cancelled = True
            return
        except LinkDown as error:
            outcome = Deferred(f"the console does not take the content: {error}", "4.4.1", Scope.SITE)
            changes = [self._recorder.apply(message, active.delivery, outcome) for active in batch]
            self._rest_until = self._clock() + self._rest_seconds
            self._rest_seconds = min(self._rest_seconds * 2, _REST_MAX_SECONDS)
        else:
            self._rest_seconds = _REST_SECONDS
            changes = [self._recorder.finish(message, active.delivery, State.CAPTURED, reason) for active in batch]
        await self._attempts.commit(
            Batch(updates=[change.delivery for change in changes], events=[change.event for change in changes])
        )
        for active in batch:
            active.recorded = True

    async def _hand_over(self, message: Message) -> str:
        """Put the content at the console; give what is to be said of it: nothing, or why it is not there."""
        if self._client is None:
            return ""
        content, _ = await self._attempts.content(message)
        try:
            query: dict[str, str | int] = {"account": message.account, "server": message.server}
            await self._client.put(f"/link/content/{message.id}", octets_of(content), query)
        except LinkRefused as error:
            if error.status in _NO_RIGHT:
                raise LinkDown(str(error)) from error
            return f"the console did not keep the content: {error}"
        return ""


def octets_of(content: Content) -> bytes | AsyncIterator[bytes]:
    """Give a content whole: header section, empty line, body."""
    head = content.header + b"\r\n"
    return head + content.body if isinstance(content.body, bytes) else _chunks(head, content)


async def _chunks(head: bytes, content: Content) -> AsyncIterator[bytes]:
    yield head
    assert not isinstance(content.body, bytes)
    file = await asyncio.to_thread(content.body.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_OCTETS):
            yield chunk
    finally:
        file.close()
