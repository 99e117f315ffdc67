"""What became of a message, and cancelling it: asked of the worker that owns it, told to its own account and server only.

A message of another account, or of another server of the same, is not there: the same answer as for an id that nobody made
(input I6). What is told comes from the spool: deliveries that are queued, and events while they are kept.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from postbud.httpd.desk import Peers
from postbud.httpd.forms import Cancelled, DeliveryState, EventState, MessageState
from postbud.httpd.problem import Code, problem
from postbud.model.delivery import FINAL, Delivery, Message
from postbud.model.event import Event, EventKind
from postbud.model.ids import MessageId, spool_of
from postbud.model.refusal import Refusal, Why
from postbud.spool.sqlite import Spool
from postbud.spool.values import Filter
from postbud.submission.authenticate import Identity

_MAX_DELIVERIES = 10_000
_MAX_EVENTS = 5_000
_ENDS = {state.value for state in FINAL} | {EventKind.QUARANTINED.value}


class Lookup:
    """Answers for messages of this worker, and asks the others for theirs."""

    def __init__(self, spool: Spool, peers: Peers, cancel: Callable[[Filter], Awaitable[int]]) -> None:
        """`cancel` ends what is queued and not under way, and gives how many deliveries that was."""
        self._spool = spool
        self._peers = peers
        self._cancel = cancel

    async def show(self, identity: Identity, message: str) -> MessageState:
        """Give a message.

        Raises:
            Problem: NOT_FOUND.
        """
        found = await self._asked("api_show", identity, message, self._show)
        if found is None:
            raise _nothing(message)
        return msgspec.convert(found, MessageState)

    async def cancel(self, identity: Identity, message: str) -> Cancelled:
        """Cancel what of a message is queued.

        Raises:
            Problem: NOT_FOUND; NOT_CANCELLABLE, when nothing is queued any more or it is on its way this moment.
        """
        found = await self._asked("api_cancel", identity, message, self._cancel_here)
        if found is None:
            raise _nothing(message)
        done = msgspec.convert(found, Cancelled)
        if done.cancelled == 0:
            queued = any(delivery.state == "queued" for delivery in done.message.deliveries)
            why = "it is on its way this moment; ask again" if queued else "none of its deliveries is queued any more"
            raise problem(Code.NOT_CANCELLABLE, why, headers={"retry-after": "5"} if queued else None)
        return done

    async def answer_show(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer another worker."""
        return {"found": await self._show(request["account"], request["server"], request["message"])}

    async def answer_cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer another worker."""
        return {"found": await self._cancel_here(request["account"], request["server"], request["message"])}

    async def _asked(
        self, op: str, identity: Identity, message: str, here: Callable[[str, str, str], Awaitable[Any]]
    ) -> Any | None:
        """Ask the owner; ids carry the spool that made them, and an adopted spool's messages are with whoever took them."""
        if not message.startswith("msg_"):
            return None
        try:
            own = spool_of(message) == self._spool.spool_id
        except ValueError:
            return None
        found = await here(identity.account, identity.server, message)
        if found is not None or own or self._peers.workers == 1:
            return found
        request = {"op": op, "account": identity.account, "server": identity.server, "message": message}
        answers = await self._peers.ask_all(request)
        found = next((answer["found"] for answer in answers if answer.get("found") is not None), None)
        if found is None and any(answer.get("silent") for answer in answers):
            raise Refusal(Why.TEMPORARY, "Trouble on our side, try again later", "a worker that may own the message is silent")
        return found

    async def _show(self, account: str, server: str, message: str) -> Any | None:
        state = await self._state(account, server, message)
        return None if state is None else msgspec.to_builtins(state)

    async def _cancel_here(self, account: str, server: str, message: str) -> Any | None:
        if await self._state(account, server, message) is None:
            return None
        count = await self._cancel(Filter(account=account, server=server, message=MessageId(message)))
        state = await self._state(account, server, message)
        return None if state is None else msgspec.to_builtins(Cancelled(count, state))

    async def _state(self, account: str, server: str, message: str) -> MessageState | None:
        queued = await self._spool.find(Filter(account=account, server=server, message=MessageId(message)), _MAX_DELIVERIES)
        events = await self._spool.events_of(MessageId(message), _MAX_EVENTS)
        mine = [event for event in events if event.account == account and event.server == server]
        accepted = next((event for event in mine if event.kind is EventKind.ACCEPTED), None)
        if accepted is None and not queued:
            return None
        deliveries = _deliveries(accepted, queued, mine)
        shown = [_event(event) for event in mine]
        if accepted is not None:
            return _state_of_event(accepted, deliveries, shown)
        return _state_of_message(queued[0][0], deliveries, shown)


def _deliveries(accepted: Event | None, queued: list[tuple[Message, Delivery]], events: list[Event]) -> list[DeliveryState]:
    states: dict[str, DeliveryState] = {}
    if accepted is not None:
        for mailbox, delivery in zip(accepted.recipients, accepted.deliveries, strict=False):
            states[delivery] = DeliveryState(delivery, mailbox, "queued")
    for event in events:
        if event.kind.value in _ENDS and event.delivery:
            states[event.delivery] = DeliveryState(
                event.delivery, event.recipient, event.kind.value, event.attempt, last_reply=event.reply
            )
    for _, one in queued:
        states[one.id] = DeliveryState(
            one.id,
            one.mailbox,
            one.state.value,
            one.attempts,
            sorted(holder.value for holder in one.held_by),
            datetime.fromtimestamp(one.due_at, UTC),
            one.last_reply,
        )
    return list(states.values())


def _event(event: Event) -> EventState:
    return EventState(
        event.id, event.kind.value, event.at, event.delivery, event.recipient, event.attempt, event.reply, event.enhanced,
        event.reason, event.hold, event.host, event.tls, event.next_attempt_at,
    )  # fmt: skip


def _state_of_event(event: Event, deliveries: list[DeliveryState], events: list[EventState]) -> MessageState:
    return MessageState(
        event.message, event.at, event.server, event.subject, event.message_id, event.from_domain, event.reverse_path,
        event.size_octets, deliveries, events, event.list or None, event.campaign or None, event.tag or None,
        event.metadata or None,
    )  # fmt: skip


def _state_of_message(message: Message, deliveries: list[DeliveryState], events: list[EventState]) -> MessageState:
    return MessageState(
        message.id, message.received_at, message.server, message.subject, message.message_id, message.from_domain,
        message.reverse_path, message.size_octets, deliveries, events, message.list, message.campaign, message.tag,
        message.metadata,
    )  # fmt: skip


def _nothing(message: str) -> Exception:
    return problem(Code.NOT_FOUND, f"there is no message {message[:40]!a}")
