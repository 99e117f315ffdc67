"""The values that delivery hands over; `wire` defines them, because it writes them."""

from postbud.wire.transaction import RecipientLine, Transaction

__all__ = ["RecipientLine", "Transaction"]
