"""The account that a key is of."""

from typing import Any

from django.http import HttpRequest
from ninja import Router

from postbud.console.accounts import services
from postbud.console.accounts.forms import time_zones
from postbud.console.accounts.models import Account
from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Key, actor_of, caller_of, now
from postbud.console.api.paging import NAYS
from postbud.console.api.problem import invalid
from postbud.console.api.schemas import AccountChange, AccountOut
from postbud.console.link.allowance import allowance_of
from postbud.console.link.quota import used_of

router = Router(tags=["account"])


@router.get("/account", auth=Key(Permission.VIEW), response={200: AccountOut, **NAYS}, summary="The key's account")
def read_account(request: HttpRequest) -> Any:
    """Give the account, with its limits and what it used of this month's allowance."""
    return _shown(caller_of(request).account)


@router.patch("/account", auth=Key(Permission.ACCOUNT), response={200: AccountOut, **NAYS}, summary="Change the account")
def change_account(request: HttpRequest, payload: AccountChange) -> Any:
    """Change what is named; what is left out stays."""
    changes = payload.dict(exclude_unset=True, exclude_none=True)
    if changes.get("time_zone") and changes["time_zone"] not in dict(time_zones()):
        raise invalid("time_zone", "is none that is known, such as Europe/Copenhagen")
    return _shown(services.update_account(actor_of(request), caller_of(request).account.id, **changes))


def _shown(account: Account) -> dict[str, Any]:
    allowance = allowance_of(account.id)[1]
    return {
        "id": account.id, "name": account.name, "status": account.status, "language": account.language,
        "time_zone": account.time_zone, "plan": account.plan.name, "hourly_cap": account.hourly_cap or account.plan.hourly_cap,
        "month_allowance": allowance, "month_used": used_of(account.id, now()), "created_at": account.created_at,
    }  # fmt: skip
