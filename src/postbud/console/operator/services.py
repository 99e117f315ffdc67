"""Every write of the operator's own things: one function, one transaction, its audit entry included.

What operators do to accounts, domains, nodes and mail are the services of those.
"""

from datetime import datetime, timedelta

from django.core.cache import cache
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.link.models import Command
from postbud.console.link.services import issue_command
from postbud.console.operator.models import Announcement, Weight
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.model.link import CommandKind, Selector

KEPT, _KEPT_SECONDS = "announced", 10
_MOST_SAID = 3
_LONGEST = timedelta(days=90)
_MOST_TEXT = 500
KINDS = {kind.value: kind for kind in (CommandKind.RETRY, CommandKind.HOLD, CommandKind.RELEASE, CommandKind.CANCEL)}


def announce(who: audit.Actor, text: str, weight: str, starts_at: datetime, ends_at: datetime) -> Announcement:
    """Put a text on everybody's pages.

    Raises:
        Refused: It is empty or too long, or its time cannot be.
    """
    cleaned = " ".join(text.split())
    if not cleaned or len(cleaned) > _MOST_TEXT or not cleaned.isprintable():
        raise Refused("text", _("A text has 1 to %d characters.") % _MOST_TEXT)
    if weight not in Weight.values:
        raise Refused("weight", _("There is no such weight."))
    if not timedelta(0) < ends_at - starts_at <= _LONGEST:
        raise Refused("ends_at", _("It ends after it begins, and within %d days.") % _LONGEST.days)
    with write():
        made = Announcement.objects.create(text=cleaned, weight=weight, starts_at=starts_at, ends_at=ends_at)
        after = {"text": cleaned, "weight": weight, "ends_at": ends_at.isoformat()}
        audit.record(who, audit.INSTALLATION, "announcement.create", made.id, after=after)
    cache.delete(KEPT)
    return made


def end_announcement(who: audit.Actor, announcement: str, now: datetime) -> None:
    """Take a text off everybody's pages. Again is harmless."""
    with write():
        found = Announcement.objects.select_for_update().filter(id=announcement, ends_at__gt=now).first()
        if found is not None:
            found.ends_at = now
            found.save(update_fields=["ends_at"])
            audit.record(who, audit.INSTALLATION, "announcement.end", found.id, before={"text": found.text})
    cache.delete(KEPT)


def announced(now: datetime) -> list[Announcement]:
    """Give what is said to everybody now; the database is asked every few seconds at most."""
    kept = cache.get(KEPT)
    if kept is None:
        kept = list(Announcement.objects.filter(ends_at__gt=now).order_by("starts_at")[:_MOST_SAID])
        cache.set(KEPT, kept, _KEPT_SECONDS)
    return [one for one in kept if one.starts_at <= now < one.ends_at]


def steer(who: audit.Actor, kind: str, selector: Selector, now: datetime) -> Command:
    """Tell every relay to do something to the queued mail that a selector means.

    Raises:
        Refused: Nothing is named, or there is no such thing to do.
    """
    wanted = KINDS.get(kind)
    if wanted is None:
        raise Refused("kind", _("There is no such command."))
    if selector == Selector():
        raise Refused("", _("Name what you mean: an account, a server, a domain, a message."))
    account = selector.account or ""
    named = {name: value for name in Selector.__struct_fields__ if (value := getattr(selector, name)) is not None}
    with write():
        told = issue_command(wanted, selector, account, now)
        audit.record(who, account or audit.INSTALLATION, "queue.command", told.id, after={"command": kind, **named})
    return told
