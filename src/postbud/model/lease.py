"""What a spool remembers of a lease of an account's month, and the name under which uses of it are counted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredLease:
    """One account's: `window` and its end (seconds since 1970; 0: never told), what is left of it, how many leases ever came.

    `left` is below zero where something was used in advance.
    """

    account: str
    window: str
    ends_at: int
    left: int
    count: int


def lease_name(account: str, window: str) -> str:
    """Give the name under which a batch counts its uses down."""
    return f"lease left {account} {window}"
