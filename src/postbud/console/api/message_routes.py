"""The message log, and what can be done to messages."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status
from pydantic import Field

from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Caller, Key, actor_of, caller_of, now
from postbud.console.api.forms import message_state
from postbud.console.api.paging import NAYS, Asked, bad_cursor, page
from postbud.console.api.problem import nothing
from postbud.console.api.schemas import CommandOut, DeliveryOut, Page
from postbud.console.link.models import Command
from postbud.console.mail import queries, services
from postbud.console.mail.models import WAITING, DeliveryRow, DeliveryState, EventRow, MessageRow
from postbud.console.mail.queries import Position, Search
from postbud.model.link import CommandKind

router = Router(tags=["messages"])
READ, ACT = Key(Permission.VIEW), Key(Permission.SEND)
_DELIVERIES = 10_000
_EVENTS = 50_000
_SECONDS_DIGITS = 10
_USUAL = timedelta(days=31)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_Word = Annotated[str, Field(max_length=320)]


State = Literal[
    "", "queued", "deferred", "held", "delivered", "captured", "bounced", "expired", "cancelled", "suppressed", "waiting"
]  # fmt: skip
_SAID = ("server", "credential", "site", "mailbox", "classified")


class Filter(Asked):
    """Which deliveries are asked for: every field that is said must agree. Without `start`: the last 31 days."""

    start: datetime | None = None
    end: datetime | None = None
    state: State = ""
    server: _Word = ""
    credential: _Word = ""
    from_domain: _Word = ""
    site: _Word = ""
    mailbox: _Word = ""
    classified: _Word = ""
    reply_code: Annotated[int, Field(ge=200, le=599)] | None = None
    q: _Word = ""

    def search(self, caller: Caller) -> Search:
        """Give what is looked for in an account."""
        at = now()
        states = tuple(str(one) for one in DeliveryState if one in WAITING) if self.state == "waiting" else (self.state,)
        text = {name: getattr(self, name).replace("\x00", "") for name in _SAID}
        return Search(
            account=caller.account.id,
            start=_instant(self.start, at - _USUAL),
            end=_instant(self.end, at + timedelta(minutes=1)),
            from_domain=self.from_domain.lower().replace("\x00", ""),
            states=states if self.state else (),
            reply_code=self.reply_code,
            text=self.q.replace("\x00", ""),
            **text,
        )


@router.get("/deliveries", auth=READ, response={200: Page[DeliveryOut], **NAYS}, summary="Search the log")
def list_deliveries(request: HttpRequest, asked: Query[Filter]) -> Any:
    """Give deliveries, newest first. A page may be short where texts are looked for: go on while there is a `next_cursor`."""
    search = asked.search(caller_of(request))
    position = None
    if asked.cursor.startswith("~"):  # where a search for texts had to stop, in seconds since 1970
        seconds = asked.cursor.removeprefix("~")
        if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= _SECONDS_DIGITS):
            raise bad_cursor()
        search = replace(search, end=min(search.end, datetime.fromtimestamp(int(seconds), UTC)))
    elif asked.cursor:
        position = Position.parse(asked.cursor)
        if position is None:
            raise bad_cursor()
    found = queries.find(search, position, asked.limit)
    cursor = str(found.older) if found.older is not None else None
    if cursor is None and found.looked_back_to is not None and found.looked_back_to > search.start:
        cursor = f"~{int(found.looked_back_to.timestamp())}"
    return page([_delivery(row) for row in found.rows], cursor)


@router.get(
    "/messages/{message_id}",
    auth=Key(Permission.VIEW, sending=True),
    response={200: dict[str, Any], **NAYS},
    summary="A message",
    url_name="message",
)
def read_message(request: HttpRequest, message_id: str) -> Any:
    """Give a message, by its id or by one of its deliveries', with its deliveries and its whole history of events.

    A key of the sending API sees what its own server sent.
    """
    found = _message(request, message_id)
    deliveries = list(DeliveryRow.objects.filter(account=found.account, message=found.id).order_by("id")[:_DELIVERIES])
    events = list(EventRow.objects.filter(account=found.account, message=found.id).order_by("at", "id")[:_EVENTS])
    return HttpResponse(msgspec.json.encode(message_state(found, deliveries, events)), content_type="application/json")


def _act(kind: CommandKind) -> Callable[..., Any]:
    def act(request: HttpRequest, message_id: str) -> Any:
        found = _message(request, message_id)
        return Status(202, services.command(actor_of(request), found.account, kind, found.id, now()))

    return act


for _kind, _summary, _about in (
    (CommandKind.RETRY, "Try again now", "Have every waiting delivery of a message attempted at once."),
    (CommandKind.RELEASE, "Release", "Take an operator's hold away; what else holds it stays."),
    (CommandKind.CANCEL, "Cancel what waits", "End the deliveries that still wait; they are never sent."),
):
    router.post(
        f"/messages/{{message_id}}/{_kind.value}",
        auth=ACT,
        response={202: CommandOut, **NAYS},
        summary=_summary,
        description=_about,
        operation_id=f"{_kind.value}_message",
    )(_act(_kind))


@router.post("/deliveries/{delivery_id}/resend", auth=ACT, response={202: CommandOut, **NAYS}, summary="Send again")
def resend_delivery(request: HttpRequest, delivery_id: str) -> Any:
    """Send a delivery that has ended again, as a new message, while its content is there."""
    found = _message(request, delivery_id)
    told: Command = services.resend(actor_of(request), found.account, found, delivery_id, now())
    return Status(202, told)


def _message(request: HttpRequest, public_id: str) -> MessageRow:
    caller = caller_of(request)
    good = public_id.isascii() and public_id.replace("_", "").isalnum()
    found = queries.message_of(caller.account.id, public_id) if good else None
    if found is None or (caller.server and found.server != caller.server):
        raise nothing(f"there is no message {public_id[:64]}")
    return found


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    same = {name: getattr(row, name) for name in DeliveryOut.model_fields if name not in {"accepted_at", "reply_code"}}
    return same | {"accepted_at": row.message_at, "reply_code": row.reply_code or None}


def _instant(given: datetime | None, otherwise: datetime) -> datetime:
    if given is None:
        return otherwise
    aware = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return min(max(aware, _EARLIEST), _LATEST)
