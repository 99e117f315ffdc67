"""How many octets each account has on hold in this worker: what accept asks before it takes more (design, §4).

A message counts once, with its first delivery that is held. Counted anew by each review of the holds, and added to in
between, so that it is near the truth within a review's minute and never costs a query.
"""

from collections import Counter

from postbud.model.delivery import Message
from postbud.model.ids import AccountId, MessageId


class HeldOctets:
    """The tally. Written by what holds, read by accept."""

    def __init__(self) -> None:
        self._octets: Counter[AccountId] = Counter()

    def of(self, account: AccountId) -> int:
        """Give an account's octets on hold."""
        return self._octets[account]

    def add(self, message: Message) -> None:
        """Count a message of which something was just held."""
        self._octets[message.account] += message.size_octets

    def recount(self) -> "Recount":
        """Begin to count anew; `finish` puts the new count in place."""
        return Recount(self._octets)


class Recount:
    """One walk over what is held, in the order of its messages."""

    def __init__(self, target: Counter[AccountId]) -> None:
        self._target = target
        self._found: Counter[AccountId] = Counter()
        self._last: MessageId | None = None

    def see(self, message: Message) -> None:
        """Count the message of a delivery that stays on hold."""
        if message.id != self._last:
            self._last = message.id
            self._found[message.account] += message.size_octets

    def finish(self) -> None:
        """Put the count in place."""
        self._target.clear()
        self._target.update(self._found)
