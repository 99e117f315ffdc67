"""What relays are told of an account."""

from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.link.publish import publish
from postbud.model.account import Status
from postbud.model.link import AccountRecord

_STATUS = {
    AccountStatus.ACTIVE: Status.ACTIVE,
    AccountStatus.PAUSED: Status.PAUSED,
    AccountStatus.BLOCKED: Status.BLOCKED,
    AccountStatus.CLOSED: Status.BLOCKED,
}


def account_record(account: Account) -> AccountRecord:
    """Give the record of an account; its plan's limits are in it."""
    return AccountRecord(
        id=account.id,
        name=account.name,
        status=_STATUS[AccountStatus(account.status)],
        block_reference=account.block_reference or None,
        hourly_cap=account.hourly_cap if account.hourly_cap is not None else account.plan.hourly_cap,
        month_allowance=account.plan.month_allowance,
    )


def publish_account(account: Account) -> None:
    """Tell relays how an account is now."""
    publish(account_record(account))
