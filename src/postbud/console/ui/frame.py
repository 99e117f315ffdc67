"""What every page's frame shows: the viewer, their accounts, the navigation, theme, marks of demo and operator.

Knows pages by the names of their addresses only; one that does not exist is not offered. Invariant: it asks the database for
nothing but the viewer's memberships and, now and then, for announcements, and only when the frame is drawn.
"""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import Promise, SimpleLazyObject
from django.utils.translation import gettext_lazy as _

from postbud.console.configuration import current
from postbud.console.operator.services import announced
from postbud.console.ui.middleware import theme_of


@dataclass(frozen=True)
class Item:
    """One line of the navigation; `key` is pressed after `g`."""

    name: str | Promise
    image: str
    address: str
    key: str = ""
    here: bool = False


@dataclass(frozen=True)
class Part:
    """Lines of the navigation under one title."""

    title: str | Promise
    items: list[Item]


# name, icon, names of addresses (the first that exists is taken), key, what else below the address belongs to it
_Line = tuple[Any, str, tuple[str, ...], str]
_ACCOUNT: tuple[tuple[Any, tuple[_Line, ...]], ...] = (
    (
        "",
        (
            (_("Home"), "home", ("accounts:home",), "h"),
            (_("Messages"), "mail", ("mail:messages",), "m"),
            (_("Statistics"), "chart-line", ("mail:statistics",), "t"),
        ),
    ),
    (
        _("Sending"),
        (
            (_("Servers"), "server", ("servers:servers",), "s"),
            (_("Domains"), "world", ("domains:domains",), "d"),
            (_("Webhooks"), "webhook", ("hooks:endpoints",), "w"),
        ),
    ),
    (
        _("Account"),
        (
            (_("Sender identity"), "shield-check", ("accounts:identity",), "i"),
            (_("People"), "users", ("accounts:people",), "p"),
            (_("Audit log"), "history", ("accounts:audit",), "a"),
            (_("API keys"), "key", ("api:keys",), ""),
            (_("Settings"), "settings", ("accounts:settings",), ""),
        ),
    ),
)
_OPERATOR: tuple[tuple[Any, tuple[_Line, ...]], ...] = (
    (
        _("Operation"),
        (
            (_("Overview"), "activity", ("operator:overview",), "o"),
            (_("Statistics"), "chart-line", ("operator:statistics",), ""),
            (_("Queue"), "hourglass", ("operator:queue",), "q"),
            (_("Relays"), "network", ("operator:relays",), "r"),
            (_("Health"), "device-desktop", ("operator:health",), ""),
            (_("Accounts"), "building", ("accounts:operator",), ""),
            (_("Domains"), "world", ("operator:domains",), ""),
            (_("Identities"), "shield-check", ("operator:identities",), ""),
            (_("Audit log"), "history", ("operator:audit",), ""),
            (_("Announcements"), "speakerphone", ("operator:announcements",), ""),
        ),
    ),
)
_ALONE = ("home", "activity")  # pages whose address others begin with
_PERSON = (
    (_("Profile"), "accounts:profile"),
    (_("E-mail address"), "account_email"),
    (_("Sign-in and security"), "mfa_index"),
    (_("Sessions"), "usersessions_list"),
)


def frame(request: HttpRequest) -> dict[str, Any]:
    """Give the frame's values to every template (a context processor)."""
    account = getattr(request, "account", None)
    user = getattr(request, "user", None)
    person = user if user is not None and user.is_authenticated else None
    configuration = current()
    mine: Any = SimpleLazyObject(lambda: accounts_of(person))
    return {
        "theme": theme_of(request),
        "languages": settings.LANGUAGES,
        "demo": configuration.demo,
        "announcements": SimpleLazyObject(lambda: announced(timezone.now())) if person else [],
        "sign_up": configuration.sign_up,
        "person": person,
        "account": account,
        "membership": getattr(request, "membership", None),
        "accounts": mine,
        "navigation": navigation(request, account, mine, operator=bool(person and person.is_operator)) if person else [],
        "person_tabs": [Item(name, "", address, here=request.path.startswith(address)) for name, address in _existing(_PERSON)],
    }


def accounts_of(person: Any) -> list[dict[str, str]]:
    """List the accounts that a person is a member of, by name."""
    if person is None:
        return []
    memberships = person.memberships.select_related("account").order_by("account__name")
    return [
        {
            "id": one.account.id,
            "name": one.account.name,
            "role": one.role,
            "status": one.account.status,
            "home": reverse("accounts:home", args=[one.account.id]),
        }
        for one in memberships
    ]


def navigation(request: HttpRequest, account: Any, mine: list[dict[str, str]], *, operator: bool) -> list[Part]:
    """Give the lines of the sidebar."""
    parts = []
    if account is not None:
        for title, lines in _ACCOUNT:
            parts.append(_part(request, title, lines, [account.id]))
    elif mine:
        parts.append(Part(_("Your accounts"), [Item(one["name"], "building", one["home"]) for one in mine]))
    if operator:
        for title, lines in _OPERATOR:
            parts.append(_part(request, title, lines, []))
    return [part for part in parts if part.items]


def _part(request: HttpRequest, title: str | Promise, lines: tuple[Any, ...], arguments: list[str]) -> Part:
    items = []
    for name, image, targets, key in lines:
        address = next((found for target in targets if (found := _reverse(target, arguments))), "")
        if address:
            here = request.path == address if image in _ALONE else request.path.startswith(address)
            items.append(Item(name, image, address, key, here))
    return Part(title, items)


def _existing(lines: tuple[tuple[Any, str], ...]) -> list[tuple[Any, str]]:
    return [(name, address) for name, target in lines if (address := _reverse(target, []))]


def _reverse(name: str, arguments: list[str]) -> str:
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return ""
