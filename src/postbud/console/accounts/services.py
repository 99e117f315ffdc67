"""Every write to accounts: one function, one transaction, its audit entry included; relays are told last.

Members and invitations are in `membership`, people in `people`. Invariant: relays hear of a pause, a block and their ends in
the transaction that decides them.
"""

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, AccountStatus, Membership, Person, Role
from postbud.console.accounts.records import publish_account
from postbud.console.billing.models import Plan
from postbud.console.billing.services import find_plan, standard_plan
from postbud.console.link.services import issue_command
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.model.link import CommandKind, Selector

MAX_NAME = 120
MAX_OWNED = 20  # accounts that one person may make by themselves
_MOST_CAP = 10**9


def create_account(
    who: audit.Actor,
    name: str,
    *,
    owner: Person | None = None,
    plan: Plan | None = None,
    language: str = "",
    time_zone: str = "",
    account_id: str | None = None,
) -> Account:
    """Make an account; its owner, if one is named, is its first member.

    Raises:
        Refused: The name cannot be, or the person has made enough accounts.
    """
    account = Account(name=clean_name(name), language=language, time_zone=time_zone)
    if account_id is not None:
        account.id = account_id
    with write():
        if owner is not None and who.kind == "person" and _owned(owner) >= MAX_OWNED:
            raise Refused("name", _("You own as many accounts as one person may."))
        account.plan = plan if plan is not None else standard_plan()
        account.save(force_insert=True)
        audit.record(who, account.id, "account.create", account.id, after=_shown(account))
        if owner is not None:
            Membership.objects.create(account=account, person=owner, role=Role.OWNER)
            told = {"person": owner.id, "email": owner.email, "role": str(Role.OWNER)}
            audit.record(who, account.id, "member.add", owner.id, after=told)
        publish_account(account)
    return account


def update_account(
    who: audit.Actor,
    account: str,
    *,
    name: str | None = None,
    language: str | None = None,
    time_zone: str | None = None,
    mfa_required: bool | None = None,
) -> Account:
    """Change what the account's own admins may change.

    Raises:
        Refused: There is no such account, or the name cannot be.
    """
    wanted = {"name": name, "language": language, "time_zone": time_zone, "mfa_required": mfa_required}
    if name is not None:
        wanted["name"] = clean_name(name)
    return _change(who, account, "account.update", {field: value for field, value in wanted.items() if value is not None})


def set_limits(who: audit.Actor, account: str, *, plan: str | None = None, hourly_cap: int | None = None) -> Account:
    """Give an account another plan (by name or id), and an hourly cap of its own; None: the plan's.

    Raises:
        Refused: There is no such account or plan, or the cap cannot be.
    """
    if hourly_cap is not None and not 0 <= hourly_cap <= _MOST_CAP:
        raise Refused("hourly_cap", _("A limit is a number, or empty for none."))
    changes: dict[str, Any] = {"hourly_cap": hourly_cap}
    if plan is not None:
        changes["plan"] = find_plan(plan)
    return _change(who, account, "account.limits", changes)


def pause_account(who: audit.Actor, account: str) -> Account:
    """Take no mail and send none, until resumed; what is queued waits. Idempotent.

    Raises:
        Refused: The account is blocked or closed, or there is none.
    """
    return _set_status(who, account, "account.pause", AccountStatus.PAUSED, (AccountStatus.ACTIVE,))


def resume_account(who: audit.Actor, account: str) -> Account:
    """End a pause. Idempotent.

    Raises:
        Refused: The account is blocked or closed, or there is none.
    """
    return _set_status(who, account, "account.resume", AccountStatus.ACTIVE, (AccountStatus.PAUSED,))


def block_account(who: audit.Actor, account: str, reference: str) -> Account:
    """Stop an account and all its servers at once. `reference` is what its people quote when they ask.

    Raises:
        Refused: The account is closed or the system's own, there is none, or the reference cannot be.
    """
    cleaned = reference.strip()
    if not cleaned or len(cleaned) > 64 or not cleaned.isprintable() or not cleaned.isascii():
        raise Refused("reference", _("A reference has 1 to 64 plain characters."))
    before = (AccountStatus.ACTIVE, AccountStatus.PAUSED, AccountStatus.BLOCKED)
    return _set_status(who, account, "account.block", AccountStatus.BLOCKED, before, block_reference=cleaned)


def unblock_account(who: audit.Actor, account: str) -> Account:
    """Lift a block; what was held is released. Idempotent.

    Raises:
        Refused: The account is closed or paused, or there is none.
    """
    return _set_status(who, account, "account.unblock", AccountStatus.ACTIVE, (AccountStatus.BLOCKED,), block_reference="")


def close_account(who: audit.Actor, account: str) -> Account:
    """End an account: its queued mail is cancelled, nothing is taken any more. It is erased thirty days later (`leaving`).

    Raises:
        Refused: There is none, or it is the system's own.
    """
    before = (AccountStatus.ACTIVE, AccountStatus.PAUSED, AccountStatus.BLOCKED)
    with write():
        closed = _set_status(who, account, "account.close", AccountStatus.CLOSED, before)
        if closed.closed_at is None:
            closed.closed_at = timezone.now()
            closed.save(update_fields=["closed_at"])
        issue_command(CommandKind.CANCEL, Selector(account=account), account, timezone.now())
    return closed


def find_account(account: str) -> Account:
    """Give an account by its id.

    Raises:
        Refused: There is none.
    """
    found = Account.objects.select_related("plan").filter(id=account).first()
    if found is None:
        raise Refused("account", _("There is no such account."))
    return found


def clean_name(name: str) -> str:
    """Give a name as it is kept.

    Raises:
        Refused: It is empty, too long, or holds what cannot be printed.
    """
    cleaned = " ".join(name.split())
    if not cleaned or len(cleaned) > MAX_NAME or not cleaned.isprintable():
        raise Refused("name", _("A name has 1 to %d characters.") % MAX_NAME)
    return cleaned


def _owned(person: Person) -> int:
    return Membership.objects.filter(person=person, role=Role.OWNER).count()


def _change(who: audit.Actor, account_id: str, action: str, changes: dict[str, Any]) -> Account:
    with write():
        account = _locked(account_id)
        before = _shown(account)
        for name, value in changes.items():
            setattr(account, name, value)
        told = audit.changed(before, _shown(account))
        if told[1]:
            account.save()
            audit.record(who, account.id, action, account.id, before=told[0], after=told[1])
            publish_account(account)
    return account


def _set_status(
    who: audit.Actor, account_id: str, action: str, wanted: AccountStatus, before: tuple[AccountStatus, ...], **also: str
) -> Account:
    with write():
        account = _locked(account_id)
        if account.status not in (wanted, *before):
            raise Refused("", _("The account is %s.") % AccountStatus(account.status).label)
        if account.id == "acct_system" and wanted is not AccountStatus.ACTIVE:
            raise Refused("account", _("The installation's own account is never stopped: notices go through it."))
        return _change(who, account_id, action, {"status": str(wanted), **also})


def _locked(account_id: str) -> Account:
    account = Account.objects.select_for_update(of=("self",)).select_related("plan").filter(id=account_id).first()
    if account is None:
        raise Refused("account", _("There is no such account."))
    return account


def _shown(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "status": str(account.status),
        "block_reference": account.block_reference,
        "language": account.language,
        "time_zone": account.time_zone,
        "mfa_required": account.mfa_required,
        "plan": account.plan.name,
        "hourly_cap": account.hourly_cap,
    }
