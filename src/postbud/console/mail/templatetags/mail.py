"""Template tags of the message log."""

from datetime import datetime

from django import template
from django.utils import formats, timezone

register = template.Library()


@register.filter
def named(names: dict[str, str], identity: str) -> str:
    """Give the name of a server or credential, or its id when it is gone."""
    return names.get(identity, identity)


@register.filter
def as_input(at: datetime | None) -> str:
    """Give an instant as a field of type datetime-local takes it, in the viewer's time zone."""
    return timezone.localtime(at).strftime("%Y-%m-%dT%H:%M:%S") if at is not None else ""


@register.filter
def percent(share: float) -> str:
    """Give a share as per cent: one decimal below ten and above ninety, where it matters."""
    value = share * 100
    near = 0 < value < 10 or 90 < value < 100
    return f"{formats.number_format(round(value, 1) if near else round(value), decimal_pos=1 if near else 0)} %"


@register.filter
def change(share: float) -> str:
    """Give a change against an earlier time as signed per cent."""
    value = round(share * 100)
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{formats.number_format(abs(value), decimal_pos=0, force_grouping=True)} %"


@register.filter
def duration(milliseconds: float | None) -> str:
    """Give a duration as people read it: ms, s, min or h."""
    if milliseconds is None:
        return "–"
    for size, unit, limit in ((1, "ms", 1_000), (1_000, "s", 120_000), (60_000, "min", 7_200_000)):
        if milliseconds < limit:
            return f"{formats.number_format(milliseconds / size, decimal_pos=0 if unit == 'ms' else 1)} {unit}"
    return f"{formats.number_format(milliseconds / 3_600_000, decimal_pos=1)} h"
