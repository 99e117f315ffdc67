"""Instants as people read them: near ones by distance, others by date, always with the exact instant in the viewer's time zone.

Pure but for the active language and time zone, which the middleware sets. Invariant: `exact` names the zone and its distance
from UTC.
"""

from datetime import datetime, timedelta

from django.utils import formats, timezone
from django.utils.translation import get_language, gettext, ngettext


def exact(at: datetime) -> str:
    """Give the whole instant: date, time to the second, zone, distance from UTC."""
    local = timezone.localtime(at)
    offset = local.strftime("%z")
    zone = local.tzname() or "UTC"
    day = formats.date_format(local, "j. F Y" if _danish() else "j F Y")
    away = f" (UTC{offset[:3]}:{offset[3:5]})" if zone != "UTC" else ""
    return f"{day} {local:%H:%M:%S} {zone}{away}"


def near(at: datetime, now: datetime) -> str:
    """Give a short text: "3 minutes ago", "in 2 hours", "14 Nov 09:30" or "14 Nov 2025"."""
    gone = now - at
    size = abs(gone)
    if size < timedelta(seconds=10):
        return gettext("just now")
    if size < timedelta(hours=20):
        return _distance(size, past=gone > timedelta(0))
    local, today = timezone.localtime(at), timezone.localtime(now)
    day = formats.date_format(local, "j. b" if _danish() else "j M")
    return f"{day} {local:%H:%M}" if local.year == today.year else f"{day} {local.year}"


def _distance(size: timedelta, *, past: bool) -> str:
    seconds = int(size.total_seconds())
    if seconds < 60:
        text = ngettext("%(n)d second", "%(n)d seconds", seconds) % {"n": seconds}
    elif seconds < 3600:
        text = ngettext("%(n)d minute", "%(n)d minutes", seconds // 60) % {"n": seconds // 60}
    else:
        text = ngettext("%(n)d hour", "%(n)d hours", seconds // 3600) % {"n": seconds // 3600}
    return gettext("%(distance)s ago") % {"distance": text} if past else gettext("in %(distance)s") % {"distance": text}


def _danish() -> bool:
    return (get_language() or "").startswith("da")
