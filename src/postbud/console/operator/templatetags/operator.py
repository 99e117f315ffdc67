"""Template tags of the operator's pages: numbers of relays, and what is wrong with them in words."""

from collections.abc import Mapping

from django import template
from django.utils import formats
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

register = template.Library()
_PROBLEMS: dict[str, tuple[str | Promise, str | Promise]] = {
    "no_space": (
        _("disk full"),
        _("The disk has no room: new mail is refused for now, results are still recorded. Make room."),
    ),
    "directory": (_("directory"), _("A worker cannot read the directory: it goes on with what it had. Its log says why.")),
    "quarantined": (
        _("quarantine"),
        _("Damaged content was set aside, with its deliveries held. See “postbud queue list --held quarantine” there."),
    ),
    "log_dropped": (_("log lines lost"), _("Nobody reads the log quickly enough: lines were dropped and counted.")),
    "lag": (_("slow"), _("A worker's loop runs more than a second late: the machine has too much to do.")),
}


@register.filter
def problem(name: str) -> str:
    """Give a problem in a word."""
    return str(_PROBLEMS.get(name, (name, name))[0])


@register.filter
def problem_text(name: str) -> str:
    """Give a problem in a sentence, with what to do."""
    return str(_PROBLEMS.get(name, (name, name))[1])


@register.filter
def number(numbers: Mapping[str, float], name: str) -> str:
    """Give one of a relay's numbers, grouped as the language does."""
    value = numbers.get(name)
    return formats.number_format(int(value), use_l10n=True, force_grouping=True) if value is not None else "–"
