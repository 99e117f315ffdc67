"""Template tags of the message log."""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()


@register.filter
def named(names: dict[str, str], identity: str) -> str:
    """Give the name of a server or credential, or its id when it is gone."""
    return names.get(identity, identity)


@register.filter
def as_input(at: datetime | None) -> str:
    """Give an instant as a field of type datetime-local takes it, in the viewer's time zone."""
    return timezone.localtime(at).strftime("%Y-%m-%dT%H:%M:%S") if at is not None else ""
