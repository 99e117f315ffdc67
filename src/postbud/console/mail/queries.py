"""Search the message log: one account's deliveries, newest first, page by page, and never longer than a person waits.

Owns which statement finds what. What an index finds (time, exact mailbox, state) is one statement. Parts of texts are looked
for by walking the key backwards in slices of time, until there is a page or the time is up: then the answer says how far it
looked, and the next goes on from there. Invariants: every statement names the account; a page is stable under new rows.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import OperationalError, connection, transaction
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

from postbud.console.fields import from_micros
from postbud.console.link.secrets import hash_mailbox
from postbud.console.mail.models import DeliveryQuerySet, DeliveryRow, DeliveryState, MessageRow, message_floor
from postbud.model.ids import to_octets
from postbud.model.mailbox import Mailbox, MailboxError

PAGE = 50
LONGEST = timedelta(days=31)  # how far one search by a part of a text goes back without being asked to go on
_FIRST_SLICE = timedelta(minutes=30)
_WIDEST_SLICE = timedelta(days=8)
_NEAR = timedelta(minutes=10)  # a delivery's id and its message's are made together
_SECONDS = 0.6  # for one answer
_STATEMENT_SECONDS = 0.3  # for one of its statements, but the narrowest
_NARROWEST_SLICE = timedelta(minutes=1)
_LONGEST_STATEMENT_SECONDS = 5.0
# the condition of the index of states, word for word: SQLite sees in no parameter that it holds
_NOT_DELIVERED = RawSQL("NOT (mail_delivery.state = 'delivered')", (), output_field=BooleanField())
# PostgreSQL takes a part of a text for rarer than it is, and would read and sort a slice to give its first fifty rows
_WALK_THE_KEY = "SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off;"
_INSTRUCTIONS = 20_000  # of SQLite's machine, a millisecond or so


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; empty values say nothing. `end` is exclusive. `text` is in subject, reply or mailbox, or is an id."""

    account: str
    start: datetime
    end: datetime
    server: str = ""
    credential: str = ""
    from_domain: str = ""
    site: str = ""
    mailbox: str = ""  # exact when it is a mailbox, else a part of one
    states: tuple[str, ...] = ()
    source: str = ""
    classified: str = ""
    reply_code: int | None = None
    text: str = ""

    @property
    def exact(self) -> Mailbox | None:
        """The mailbox that is looked for, when it is a whole one."""
        return _mailbox(self.mailbox) or _mailbox(self.text)

    @property
    def walks(self) -> bool:
        """Whether rows must be read to be judged, because no index finds them."""
        others = (
            self.mailbox, self.text, self.from_domain, self.site, self.source, self.classified, self.reply_code, self.server,
            self.credential,
        )  # fmt: skip
        return any(others) and self.exact is None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ends: the key of its last row."""

    message: str
    delivery: str

    def __str__(self) -> str:
        """Give it as an address carries it."""
        return f"{self.message}.{self.delivery}"

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """Read one; None for what is none."""
        message, _, delivery = text.partition(".")
        good = message.startswith("msg_") and delivery.startswith("dlv_") and len(text) < 80 and text.isascii()
        return cls(message, delivery) if good else None


@dataclass(frozen=True, slots=True)
class Page:
    """What was found. `older`: go on from there. `looked_back_to`: nothing before it was looked at; ask to go on."""

    rows: list[DeliveryRow]
    older: Position | None = None
    looked_back_to: datetime | None = None


def find(search: Search, before: Position | None = None, limit: int = PAGE) -> Page:
    """Give the newest deliveries that agree, before a position."""
    if search.walks:
        return _walk(search, _before(_wanted(search), before), limit)
    # each state by itself comes from its index in order; all together would be sorted, or looked for row by row
    each = [replace(search, states=(state,)) for state in search.states] if len(search.states) > 1 else [search]
    found: list[DeliveryRow] = []
    for one in each:
        rows = _before(_wanted(one), before).between(search.account, search.start, search.end)
        found += rows.order_by("-message", "-id")[: limit + 1]
    found.sort(key=lambda row: (row.message, row.id), reverse=True)
    return _page(found, limit)


def newer(search: Search, after: Position, limit: int = PAGE) -> list[DeliveryRow]:
    """Give what came in after a position, newest first, for a page that is watched."""
    rows = _wanted(search).between(search.account, search.start, search.end)
    later = Q(message__gt=after.message) | Q(message=after.message, id__gt=after.delivery)
    rows = rows.filter(later, message__gte=after.message)
    with _bounded(_LONGEST_STATEMENT_SECONDS):
        return list(rows.order_by("-message", "-id")[:limit])


def changed(account: str, positions: Sequence[Position]) -> list[DeliveryRow]:
    """Give deliveries by their positions, as they stand now."""
    if not positions:
        return []
    wanted = DeliveryRow.objects.filter(account=account, message__in=[one.message for one in positions])
    return list(wanted.filter(id__in=[one.delivery for one in positions]).order_by("-message", "-id"))


def message_of(account: str, public_id: str) -> MessageRow | None:
    """Give a message by its id, or by one of its deliveries'."""
    if public_id.startswith("msg_"):
        return MessageRow.objects.filter(account=account, id=public_id).first()
    row = _delivery(account, public_id) if public_id.startswith("dlv_") else None
    return MessageRow.objects.filter(account=account, id=row.message).first() if row is not None else None


def _delivery(account: str, public_id: str) -> DeliveryRow | None:
    try:
        at = from_micros(int.from_bytes(to_octets(public_id)[:6], "big") * 1000)
    except (ValueError, OverflowError):
        return None
    near = DeliveryRow.objects.filter(account=account, id=public_id)
    return near.filter(message__gte=message_floor(at - _NEAR), message__lt=message_floor(at + _NEAR)).first()


def every(search: Search, at_once: int = 1000) -> Iterator[DeliveryRow]:
    """Give everything that agrees, newest first, in pages: for exports."""
    oldest = DeliveryRow.objects.filter(account=search.account).order_by("message", "id").first()
    if oldest is None:
        return
    search = replace(search, start=max(search.start, oldest.message_at - _NEAR))
    before: Position | None = None
    until = search.end
    while until > search.start:
        page = find(replace(search, end=until), before, at_once)
        yield from page.rows
        if page.older is not None:
            before = page.older
        elif page.looked_back_to is not None and page.looked_back_to > search.start:
            until, before = page.looked_back_to, None
        else:
            return


def _wanted(search: Search) -> DeliveryQuerySet:
    rows = DeliveryRow.objects.filter(account=search.account)
    exact = search.exact
    if exact is not None:
        rows = rows.filter(mailbox_hash=hash_mailbox(search.account, str(exact)))
    elif search.mailbox:
        rows = rows.filter(mailbox__icontains=search.mailbox)
    if search.text and exact is None:
        rows = rows.filter(
            Q(subject__icontains=search.text) | Q(reply__icontains=search.text) | Q(mailbox__icontains=search.text)
        )
    if search.states:
        rows = rows.filter(state__in=search.states)
        if DeliveryState.DELIVERED not in search.states:
            rows = rows.filter(_NOT_DELIVERED)
    for column in ("server", "credential", "from_domain", "site", "source", "classified"):
        if value := getattr(search, column):
            rows = rows.filter(**{column: value})
    if search.reply_code is not None:
        rows = rows.filter(reply_code=search.reply_code)
    return rows


def _before(rows: DeliveryQuerySet, position: Position | None) -> DeliveryQuerySet:
    if position is None:
        return rows
    earlier = Q(message__lt=position.message) | Q(message=position.message, id__lt=position.delivery)
    return rows.filter(earlier, message__lte=position.message)


def _walk(search: Search, rows: DeliveryQuerySet, limit: int) -> Page:
    began = time.monotonic()
    floor = max(search.start, search.end - LONGEST)
    found: list[DeliveryRow] = []
    end, width = search.end, _FIRST_SLICE
    while end > floor and len(found) <= limit:
        start = max(floor, end - width)
        slice_began = time.monotonic()
        narrow = width <= _NARROWEST_SLICE
        try:
            with _bounded(_LONGEST_STATEMENT_SECONDS if narrow else _STATEMENT_SECONDS):
                found += rows.between(search.account, start, end).order_by("-message", "-id")[: limit + 1 - len(found)]
        except OperationalError:  # it took too long: a narrower slice; no page waits for longer than the narrowest
            if narrow:
                raise
            width = max(width / 8, _NARROWEST_SLICE)
        else:
            end = start
            if time.monotonic() - slice_began < _SECONDS / 8:
                width = min(width * 2, _WIDEST_SLICE)
        if end < search.end and time.monotonic() - began > _SECONDS:
            break
    page = _page(found, limit)
    partial = page.older is None and end > search.start and _has_older(search.account, end)
    return replace(page, looked_back_to=end) if partial else page


def _has_older(account: str, end: datetime) -> bool:
    return DeliveryRow.objects.filter(account=account, message__lt=message_floor(end)).exists()


def _page(found: list[DeliveryRow], limit: int) -> Page:
    rows = found[:limit]
    more = len(found) > limit
    return Page(rows, Position(rows[-1].message, rows[-1].id) if more else None)


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Let no statement of the block run for longer.

    Raises:
        OperationalError: One would have.
    """
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"{_WALK_THE_KEY} SET LOCAL statement_timeout = {int(seconds * 1000)}")
            yield
        return
    connection.ensure_connection()
    until = time.monotonic() + seconds
    embedded = connection.connection
    embedded.set_progress_handler(lambda: time.monotonic() > until, _INSTRUCTIONS)
    try:
        yield
    finally:
        embedded.set_progress_handler(None, 0)


def _mailbox(text: str) -> Mailbox | None:
    try:
        return Mailbox.parse(text.strip(), smtputf8=True) if "@" in text else None
    except MailboxError:
        return None
