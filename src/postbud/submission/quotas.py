"""What an account, a server and a credential may still send: hourly caps, and with a console the account's month.

One face over both for the gate; owns their order only. A no is 450 4.7.28 and says when to try again. All that a message uses
is used or none of it. Sandbox mail is never delivered and uses nothing of the month.
"""

from postbud.link.leases import NOTHING, MonthLeases
from postbud.link.quota import HourlyCaps
from postbud.link.replica import Grant
from postbud.model.account import Kind


class Quotas:
    """Asked at MAIL and just before the commit."""

    def __init__(self, caps: HourlyCaps, months: MonthLeases | None) -> None:
        """`months` is None for a relay that stands alone: it knows no allowances."""
        self._caps = caps
        self._months = months

    def check(self, grant: Grant) -> None:
        """Refuse at MAIL what nothing is left for.

        Raises:
            Refusal: RATE.
        """
        self._caps.check(grant)
        if self._months is not None and _counts(grant):
            self._months.check(grant)

    async def ready(self, grant: Grant, deliveries: int) -> None:
        """Wait for a lease that is on its way, if one is needed. Costs nothing otherwise."""
        if self._months is not None and _counts(grant):
            await self._months.ready(grant, deliveries)

    def take(self, grant: Grant, deliveries: int) -> list[tuple[str, int]]:
        """Use so many of everything; give what the batch must count down.

        Raises:
            Refusal: RATE; nothing is used.
        """
        if self._months is None or not _counts(grant):
            self._caps.take(grant, deliveries)
            return NOTHING
        uses = self._months.take(grant, deliveries)
        try:
            self._caps.take(grant, deliveries)
        except BaseException:
            self._months.give_back(grant, deliveries)
            raise
        return uses

    def give_back(self, grant: Grant, deliveries: int) -> None:
        """Undo a use of the month whose message was not stored; what an hour's cap lost comes back by itself."""
        if self._months is not None and _counts(grant):
            self._months.give_back(grant, deliveries)


def _counts(grant: Grant) -> bool:
    return grant.account.month_allowance is not None and grant.server.kind is not Kind.SANDBOX
