"""What people do to queued mail: commands to the relays, each in one transaction with its audit entry."""

from datetime import datetime

from postbud.console.accounts import audit
from postbud.console.link.models import Command
from postbud.console.link.services import issue_command
from postbud.console.transaction import write
from postbud.model.link import CommandKind, Selector

ALLOWED = {
    "retry": CommandKind.RETRY,
    "release": CommandKind.RELEASE,
    "cancel": CommandKind.CANCEL,
    "hold": CommandKind.HOLD,
    "resend": CommandKind.RESEND,
}


def command(who: audit.Actor, account: str, what: CommandKind, message: str, now: datetime, delivery: str = "") -> Command:
    """Tell the relays what to do with a message, or one delivery of it. It is told until they answered, or a day went by."""
    selector = Selector(account=account, message=message, delivery=delivery or None)
    with write():
        told = issue_command(what, selector, account, now)
        after = {"command": what.value, "delivery": delivery} if delivery else {"command": what.value}
        audit.record(who, account, "message.command", message, after=after)
    return told
