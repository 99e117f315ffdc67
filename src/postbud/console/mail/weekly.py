"""The weekly summary: Monday's mail with the figures of the week, to members who asked for it.

Owns when it goes and what ends it. Invariants: nobody gets it who did not ask; one a week, member and account, also after an
outage; its link ends it without signing in, as does a mail program's own button (RFC 8058); days are the reader's.
"""

from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from django.core import signing
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import formats, translation
from django.utils.translation import gettext as _

from postbud.console.accounts.models import AccountStatus, Membership
from postbud.console.configuration import current
from postbud.console.mail import statistics
from postbud.console.transaction import write

_SALT = "postbud.weekly"
_AT = time(7)
_AT_ONCE = 20
_MOST_SITES = 3


def wants(account: str, person: str) -> bool:
    """Tell whether a member asked for the summary of an account."""
    return Membership.objects.filter(account=account, person=person, weekly_at__isnull=False).exists()


def ask(account: str, person: str, now: datetime, *, wanted: bool) -> None:
    """Begin or end a member's summary: from next Monday, seven o'clock where they are. No member: nothing."""
    with write():
        member = Membership.objects.select_related("person", "account").filter(account=account, person=person).first()
        if member is not None and wanted != (member.weekly_at is not None):
            member.weekly_at = _next_monday(now, _zone(member)) if wanted else None
            member.save(update_fields=["weekly_at"])


def end(token: str, *, really: bool) -> Membership | None:
    """Give whom a link of a summary is about, and end their summary if `really`; None: the link is not ours, or too late."""
    try:
        account, person = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError):
        return None
    member = Membership.objects.select_related("account").filter(account=account, person=person).first()
    if member is not None and really:
        with write():
            Membership.objects.filter(pk=member.pk).update(weekly_at=None)
    return member


def send_due(now: datetime) -> int:
    """Write the summaries that are due; give how many. A week in which nothing happened has none."""
    due = Membership.objects.select_related("person", "account").filter(weekly_at__lte=now).order_by("weekly_at")[:_AT_ONCE]
    members = list(due)
    for member in members:
        with write():
            following = _next_monday(now, _zone(member))
            taken = Membership.objects.filter(pk=member.pk, weekly_at=member.weekly_at).update(weekly_at=following)
            if taken and member.person.is_active and member.account.status != AccountStatus.CLOSED:
                _write_to(member, now)
    return len(members)


def _write_to(member: Membership, now: datetime) -> None:
    zone = _zone(member)
    end_day = now.astimezone(zone).date()
    end_day -= timedelta(days=end_day.weekday())
    days = [end_day - timedelta(days=count) for count in (14, 7, 0)]
    earlier, start, until = (datetime.combine(day, time(), zone).astimezone(UTC) for day in days)
    counts = statistics.total(member.account_id, start, until)
    before = statistics.total(member.account_id, earlier, start)
    if not counts.accepted and not before.accepted:
        return
    sites = [(site, each.failed) for site, each in statistics.by_value(member.account_id, start, until, "site") if each.failed]
    figures = reverse("mail:statistics", args=[member.account_id])
    token = signing.dumps([member.account_id, member.person_id], salt=_SALT)
    stop = current().public_url + reverse("mail:weekly_end", args=[token])
    with translation.override(member.person.language or member.account.language or "en"):
        week = formats.date_format(days[1], "DATE_FORMAT")
        values = {
            "account": member.account.name,
            "week": week,
            "counts": counts,
            "rest": counts.cancelled + counts.suppressed,
            "change": (counts.accepted - before.accepted) / before.accepted if before.accepted else None,
            "shares": {name: counts.share(getattr(counts, name)) for name in ("delivered", "captured", "failed")},
            "latencies": statistics.latencies(member.account_id, start, until),
            "sites": sorted(sites, key=lambda pair: -pair[1])[:_MOST_SITES],
            "address": f"{current().public_url}{figures}?period=7d",
            "stop": stop,
        }
        text = render_to_string("mail/mail/weekly.txt", values)
        subject = _("%(account)s: the week from %(week)s") % {"account": member.account.name, "week": week}
    headers = {"List-Unsubscribe": f"<{stop}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    EmailMessage(subject=subject, body=text, to=[member.person.email], headers=headers).send()


def _zone(member: Membership) -> tzinfo:
    return ZoneInfo(member.person.time_zone or member.account.time_zone or "UTC")


def _next_monday(now: datetime, zone: tzinfo) -> datetime:
    today = now.astimezone(zone).date()
    monday = datetime.combine(today - timedelta(days=today.weekday()), _AT, zone)
    if monday <= now:
        monday = datetime.combine(monday.date() + timedelta(days=7), _AT, zone)
    return monday.astimezone(UTC)
