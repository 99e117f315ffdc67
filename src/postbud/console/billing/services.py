"""Every write to plans: one function, one transaction. A changed plan is told to relays for each of its accounts."""

from typing import Any

from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account
from postbud.console.accounts.records import publish_account
from postbud.console.billing.models import Plan
from postbud.console.refused import Refused
from postbud.console.transaction import write

STANDARD = "Standard"
_LIMITS = ("month_allowance", "hourly_cap", "log_days", "content_days", "servers_limit")
_LONGEST_DAYS = 3650
_MOST = 10**12


def create_plan(who: audit.Actor, name: str, **limits: int | None) -> Plan:
    """Make a plan. Limits that are not named are the table's defaults.

    Raises:
        Refused: The name is empty or taken, or a limit cannot be.
    """
    plan = Plan(name=_name(name), **_checked(limits))
    with write():
        if Plan.objects.filter(name=plan.name).exists():
            raise Refused("name", _("There is a plan of that name."))
        plan.save(force_insert=True)
        audit.record(who, audit.INSTALLATION, "plan.create", plan.id, after=_shown(plan))
    return plan


def update_plan(who: audit.Actor, plan_id: str, *, name: str | None = None, **limits: int | None) -> Plan:
    """Change a plan; all its accounts have the new limits at once.

    Raises:
        Refused: As `create_plan`, or there is no such plan.
    """
    changes: dict[str, Any] = _checked(limits)
    if name is not None:
        changes["name"] = _name(name)
    with write():
        plan = Plan.objects.select_for_update().filter(id=plan_id).first()
        if plan is None:
            raise Refused("plan", _("There is no such plan."))
        if name is not None and Plan.objects.filter(name=changes["name"]).exclude(id=plan.id).exists():
            raise Refused("name", _("There is a plan of that name."))
        before = _shown(plan)
        for field, value in changes.items():
            setattr(plan, field, value)
        plan.save()
        told = audit.changed(before, _shown(plan))
        audit.record(who, audit.INSTALLATION, "plan.update", plan.id, before=told[0], after=told[1])
        for account in Account.objects.select_related("plan").filter(plan=plan):
            publish_account(account)
    return plan


def standard_plan() -> Plan:
    """Give the plan of accounts for which nobody chose another; make it when there is none. Inside of `write()` too."""
    plan = Plan.objects.filter(name=STANDARD).first() or Plan.objects.order_by("id").first()
    return plan if plan is not None else create_plan(audit.SYSTEM, STANDARD)


def find_plan(name_or_id: str) -> Plan:
    """Give a plan by name or id.

    Raises:
        Refused: There is none.
    """
    plan = Plan.objects.filter(id=name_or_id).first() or Plan.objects.filter(name=name_or_id).first()
    if plan is None:
        raise Refused("plan", _("There is no such plan."))
    return plan


def _name(name: str) -> str:
    cleaned = " ".join(name.split())
    if not cleaned or len(cleaned) > 120 or not cleaned.isprintable():
        raise Refused("name", _("A name has 1 to 120 characters."))
    return cleaned


def _checked(limits: dict[str, int | None]) -> dict[str, int | None]:
    for name, value in limits.items():
        if name not in _LIMITS:
            raise Refused(name, _("There is no such limit."))
        if name.endswith("_days"):
            if value is None or not 0 < value <= _LONGEST_DAYS:
                raise Refused(name, _("Days are 1 to 3650."))
        elif value is not None and not 0 <= value <= _MOST:
            raise Refused(name, _("A limit is a number, or empty for none."))
    return limits


def _shown(plan: Plan) -> dict[str, Any]:
    return {"name": plan.name, **{name: getattr(plan, name) for name in _LIMITS}}
