"""What the link must know of accounts and servers to judge a request."""

from postbud.console.accounts.models import Account
from postbud.console.mail.models import MessageRow
from postbud.console.servers.models import Server


def allowance_of(account: str) -> tuple[bool, int | None]:
    """Tell whether there is such an account, and how many recipients a month its plan allows; None: no limit."""
    found = Account.objects.filter(id=account).values_list("plan__month_allowance", flat=True).first()
    if found is None:
        return Account.objects.filter(id=account).exists(), None
    return True, found


def server_is_of(account: str, server: str, message: str) -> bool:
    """Tell whether a server is the account's, and the message, as far as it is known, is that server's."""
    if not Server.objects.filter(id=server, account_id=account).exists():
        return False
    known = MessageRow.objects.filter(account=account, id=message).values_list("server", flat=True).first()
    return known is None or known == server
