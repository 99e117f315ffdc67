"""The Date form of header fields (RFC 5322 s3.3), written and read. The clock is the caller's."""

import re
from datetime import UTC, datetime, timedelta, timezone

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower().encode("ascii"): number for number, name in enumerate(_MONTHS, 1)}
_ZONES = {
    b"ut": 0,
    b"gmt": 0,
    b"z": 0,
    b"edt": -4,
    b"est": -5,
    b"cdt": -5,
    b"cst": -6,
    b"mdt": -6,
    b"mst": -7,
    b"pdt": -7,
    b"pst": -8,
}
_DATE = re.compile(
    rb"[ \t]*(?:[A-Za-z]{3,9}[ \t]*,[ \t]*)?(\d{1,2})[ \t]+([A-Za-z]{3})[A-Za-z]{0,6}[ \t]+(\d{4}|\d{2})"
    rb"[ \t]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:[ \t]+(?:([+-])(\d{2})(\d{2})|([A-Za-z]{1,5})))?(?:[ \t]*\([^()]*\))?[ \t]*"
)


def format_date(at: datetime) -> str:
    """Give an aware instant as RFC 5322 writes it, in UTC: `Tue, 24 Nov 2026 21:07:17 +0000`."""
    utc = at.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]}, {utc.day} {_MONTHS[utc.month - 1]} {utc.year:04d}"
        f" {utc.hour:02d}:{utc.minute:02d}:{utc.second:02d} +0000"
    )


def parse_date(value: bytes) -> datetime | None:
    """Read the unfolded value of a Date field, obsolete zones and two-digit years included; None when it is no date."""
    match = _DATE.fullmatch(value)
    if match is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes, zone_name = match.groups()
    years = int(year)
    if len(year) == 2:
        years += 2000 if years < 50 else 1900  # RFC 5322 s4.3
    if sign is None:
        offset = timedelta(hours=_ZONES.get((zone_name or b"").lower(), 0))
    else:
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes)) * (-1 if sign == b"-" else 1)
    try:
        leap = int(second or 0) == 60
        return datetime(
            years,
            _MONTH_NUMBER.get(month.lower(), 0),
            int(day),
            int(hour),
            int(minute),
            59 if leap else int(second or 0),
            tzinfo=timezone(offset),
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
