"""The audit log as people read it: a page of entries with names in place of ids, newest first, and whether the chain is whole.

Reads only. Invariant: entries are those of the account that was asked for, and of no other.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.utils.translation import gettext as _

from postbud.console.accounts.audit import verify_chain
from postbud.console.accounts.models import Account, AuditEntry, Person

PAGE = 50


@dataclass(frozen=True)
class Change:
    """One value before and after; None where there was or is none."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Page:
    """A page of the log, and what it was asked for."""

    entries: list[AuditEntry]
    actions: list[str]
    filters: dict[str, str]
    older: int | None
    chain_ok: bool

    def shown(self, address: str) -> dict[str, Any]:
        """Give the values of the page's template."""
        kept = {name: value for name, value in self.filters.items() if value}
        return {
            "entries": self.entries,
            "actions": self.actions,
            "filters": self.filters,
            "chain_ok": self.chain_ok,
            "newer": f"{address}?{urlencode(kept)}" if self.filters.get("below") else "",
            "older": f"{address}?{urlencode({**kept, 'below': self.older})}" if self.older else "",
        }


def page_of(account: str, *, actor: str, action: str, below: str) -> Page:
    """Give the entries numbered below `below` that fit."""
    entries = AuditEntry.objects.filter(account=account)
    actions = sorted(entries.values_list("action", flat=True).distinct())
    if actor:
        known = Person.objects.filter(Q(email__icontains=actor) | Q(name__icontains=actor)).filter(memberships__account=account)
        entries = entries.filter(Q(actor__in=list(known.values_list("id", flat=True))) | Q(actor=actor) | Q(actor_kind=actor))
    if action:
        entries = entries.filter(action=action)
    if below.isdecimal():
        entries = entries.filter(number__lt=int(below[:15]))
    found = list(entries.order_by("-number")[: PAGE + 1])
    shown = found[:PAGE]
    names = dict(Person.objects.filter(id__in={one.actor for one in shown}).values_list("id", "email"))
    for one in shown:
        one.actor_name = _name(one, names)  # type: ignore[attr-defined]  # for the template only
        one.changes = changes_of(one)  # type: ignore[attr-defined]  # as above
    older = shown[-1].number if len(found) > PAGE else None
    return Page(shown, actions, {"actor": actor, "action": action, "below": below}, older, chain_ok=not verify_chain(account))


@dataclass(frozen=True)
class Found:
    """What a search of everybody's log found, and what it was asked for."""

    entries: list[AuditEntry]
    asked: dict[str, str]
    older: str

    def shown(self, address: str) -> dict[str, Any]:
        """Give the values of the page's template."""
        kept = {name: value for name, value in self.asked.items() if value and name != "before"}
        return {
            "entries": self.entries,
            "newer": f"{address}?{urlencode(kept)}" if self.asked["before"] else "",
            "older": f"{address}?{urlencode({**kept, 'before': self.older})}" if self.older else "",
        }


def search_all(*, account: str, actor: str, action: str, object: str, before: str) -> Found:  # noqa: A002 (the page's word)
    """Search the log of every account and of the installation, newest first: for operators."""
    entries = AuditEntry.objects.all()
    if account:
        named = Account.objects.filter(Q(id=account) | Q(name__icontains=account)).values_list("id", flat=True)[:PAGE]
        entries = entries.filter(account__in=[account, *named])
    if actor:
        known = Person.objects.filter(Q(email__icontains=actor) | Q(name__icontains=actor)).values_list("id", flat=True)[:PAGE]
        entries = entries.filter(Q(actor__in=list(known)) | Q(actor=actor) | Q(actor_kind=actor))
    if action:
        entries = entries.filter(action__startswith=action)
    if object:
        entries = entries.filter(object_id=object)
    if before.isdecimal():
        entries = entries.filter(pk__lt=int(before[:18]))
    found = list(entries.order_by("-pk")[: PAGE + 1])
    shown = found[:PAGE]
    names = dict(Person.objects.filter(id__in={one.actor for one in shown}).values_list("id", "email"))
    accounts = dict(Account.objects.filter(id__in={one.account for one in shown}).values_list("id", "name"))
    for one in shown:
        one.actor_name = _name(one, names)  # type: ignore[attr-defined]  # for the template only
        one.changes = changes_of(one)  # type: ignore[attr-defined]  # as above
        one.account_name = accounts.get(one.account, one.account)  # type: ignore[attr-defined]  # as above
    asked = {"account": account, "actor": actor, "action": action, "object": object, "before": before}
    return Found(shown, asked, str(shown[-1].pk) if len(found) > PAGE else "")


def changes_of(entry: AuditEntry) -> list[Change]:
    """Give what an entry changed, value by value."""
    before, after = entry.before or {}, entry.after or {}
    names = [*after, *(name for name in before if name not in after)]
    return [
        Change(name, _text(before.get(name)), _text(after.get(name))) for name in names if before.get(name) or after.get(name)
    ]


def _text(value: object) -> str | None:
    if value is None or value == "":
        return None
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _name(entry: AuditEntry, names: dict[str, str]) -> str:
    if entry.actor_kind in ("person", "operator"):
        name = names.get(entry.actor, entry.actor)
        return f"{name} ({_('operator')})" if entry.actor_kind == "operator" else name
    return f"{entry.actor_kind} {entry.actor}".strip()
