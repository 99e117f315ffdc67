"""What people do in the message log: commands to the relays, searches that they keep, and reading what is audited.

Each is one transaction with its audit entry. Invariant: a kept search is its person's and its account's.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.http import QueryDict
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.services import clean_name
from postbud.console.ids import new_id
from postbud.console.link.models import Command, Content
from postbud.console.link.services import issue_command
from postbud.console.mail.forms import SearchForm
from postbud.console.mail.models import DeliveryRow, DeliveryState, MessageRow, SavedView
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.model.link import CommandKind, Selector

MOST_VIEWS = 50  # of one person in one account
_MOST_QUERY = 2_000
ALLOWED = {
    "retry": CommandKind.RETRY,
    "release": CommandKind.RELEASE,
    "cancel": CommandKind.CANCEL,
    "hold": CommandKind.HOLD,
}
_ENDED = frozenset({DeliveryState.DELIVERED, DeliveryState.BOUNCED, DeliveryState.EXPIRED, DeliveryState.CANCELLED})
RESENT_WITHIN = timedelta(days=7)  # relays keep the events of accepted mail that long (`spool.event_days`)


def command(who: audit.Actor, account: str, what: CommandKind, message: str, now: datetime, delivery: str = "") -> Command:
    """Tell the relays what to do with a message, or one delivery of it. It is told until they answered, or a day went by."""
    selector = Selector(account=account, message=message, delivery=delivery or None)
    with write():
        told = issue_command(what, selector, account, now)
        after = {"command": what.value, "delivery": delivery} if delivery else {"command": what.value}
        audit.record(who, account, "message.command", message, after=after)
    return told


def resendable(message: MessageRow, deliveries: Iterable[DeliveryRow], now: datetime, *, kept: bool) -> set[str]:
    """Give the deliveries of a message that can be sent again; `kept`: the console has its content.

    A relay has it too while other recipients wait. What is older than its events, a relay does not know any more.
    """
    deliveries = list(deliveries)
    if now - message.at > RESENT_WITHIN or not (kept or any(not one.is_final for one in deliveries)):
        return set()
    return {one.id for one in deliveries if one.state in _ENDED}


def resend(who: audit.Actor, account: str, message: MessageRow, delivery: str, now: datetime) -> Command:
    """Tell the relay that took a message to send it to one recipient again, as a new message.

    Raises:
        Refused: It has not ended, or its content is gone.
    """
    kept = has_content(account, message.id)
    mine = DeliveryRow.objects.filter(account=account, message=message.id)
    if delivery not in resendable(message, mine, now, kept=kept):
        raise Refused("delivery", _("This cannot be sent again: it still waits, or its content is not kept any more."))
    return command(who, account, CommandKind.RESEND, message.id, now, delivery)


def has_content(account: str, message: str) -> bool:
    """Tell whether the console keeps the content of a message."""
    return Content.objects.filter(account=account, message=message).exists()


def keep_view(who: audit.Actor, account: str, person: str, name: str, query: str) -> SavedView:
    """Keep a search of the log under a name; the same name again means the new search.

    Raises:
        Refused: The name cannot be, nothing is searched for, or there are too many.
    """
    name, query = clean_name(name), clean_query(query)
    if not query:
        raise Refused("name", _("Search for something first: everything is there anyway."))
    with write():
        mine = SavedView.objects.select_for_update().filter(account=account, person=person)
        view = mine.filter(name=name).first()
        if view is None:
            if mine.count() >= MOST_VIEWS:
                raise Refused("name", _("You have %d searches here. Remove one first.") % MOST_VIEWS)
            view = SavedView(id=new_id("view"), account=account, person=person, name=name)
        view.query = query
        view.save()
        audit.record(who, account, "view.keep", view.id, after={"name": name, "query": query})
    return view


def drop_view(who: audit.Actor, account: str, person: str, view: str) -> bool:
    """Forget a kept search; tell whether it was there."""
    with write():
        found = SavedView.objects.filter(account=account, person=person, id=view).first()
        if found is None:
            return False
        audit.record(who, account, "view.drop", found.id, before={"name": found.name, "query": found.query})
        found.delete()
    return True


def clean_query(query: str) -> str:
    """Give a query string with nothing in it but what the log's filter knows."""
    try:
        given = QueryDict(query[:_MOST_QUERY])
    except ValueError:
        return ""
    kept = QueryDict(mutable=True)
    for name in SearchForm.base_fields:
        if (value := given.get(name, "").strip()) and "\x00" not in value:  # PostgreSQL holds none
            kept[name] = value
    return kept.urlencode()


def note_export(who: audit.Actor, account: str, kind: str, query: str) -> None:
    """Note that a search of the log leaves as a file."""
    with write():
        audit.record(who, account, "messages.export", kind, after={"query": clean_query(query)})


def note_read(who: audit.Actor, account: str, message: str) -> None:
    """Note that somebody reads a message's content."""
    with write():
        audit.record(who, account, "message.read", message)
