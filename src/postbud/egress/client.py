"""A connection to a next hop, as delivery uses it."""

from collections.abc import Awaitable, Callable

from postbud.egress.transaction import Transaction
from postbud.model.outcome import Outcome, Peer


class Connection:
    """An open SMTP session with a next hop, ready for MAIL."""

    peer: Peer
    transactions: int

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin here."""
        raise NotImplementedError

    def offers(self, keyword: str) -> bool:
        """Tell whether the peer's EHLO named a keyword."""
        raise NotImplementedError

    async def deliver(
        self,
        transaction: Transaction,
        *,
        before_mail: Callable[[], None] | None = None,
        before_dot: Callable[[], Awaitable[None]] | None = None,
    ) -> list[Outcome]:
        """Send one message; give one outcome per recipient, in their order.

        Raises:
            Refusal: From `before_mail`, before anything was sent; the connection stays usable.
        """
        raise NotImplementedError

    async def quit(self) -> None:
        """Say QUIT and close. Never raises; safe on a dead connection."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the connection at once."""
        raise NotImplementedError
