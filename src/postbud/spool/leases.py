"""What this spool has left of leases: rows of table `meta`, so that a use is durable in the commit of the message that used it.

Knows names and numbers; what is leased, and from whom, is `link.leases`'. A number may fall below zero: used in advance.
"""

from collections import Counter
from collections.abc import Iterable

import apsw

from postbud.model.lease import StoredLease, lease_name

_PREFIX = "lease "


def use(connection: apsw.Connection, uses: Iterable[tuple[str, int]]) -> None:
    """Count uses down. In the transaction of what used them."""
    total: Counter[str] = Counter()
    for name, amount in uses:
        total[name] += amount
    connection.executemany(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, -amount) for name, amount in total.items()],
    )


def note(connection: apsw.Connection, account: str, window: str, ends_at: int, granted: int) -> None:
    """Add what was granted; forget the account's windows from before."""
    add = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
    connection.execute(
        "DELETE FROM meta WHERE name GLOB ? AND name <> ?", (f"{_PREFIX}left {account} *", lease_name(account, window))
    )
    connection.execute(add, (lease_name(account, window), granted))
    connection.execute(add, (f"{_PREFIX}count {account}", 1))
    connection.execute("DELETE FROM meta WHERE name GLOB ?", (f"{_PREFIX}ends {account} *",))
    connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (f"{_PREFIX}ends {account} {window}", ends_at))


def stored(connection: apsw.Connection) -> list[StoredLease]:
    """Give all that is noted."""
    left: dict[tuple[str, str], int] = {}
    ends: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    for name, value in connection.execute("SELECT name, value FROM meta WHERE name GLOB ?", (f"{_PREFIX}*",)):
        kind, account, *window = name.removeprefix(_PREFIX).split(" ")
        if kind == "left":
            left[account, window[0]] = value
        elif kind == "ends":
            ends[account, window[0]] = value
        else:
            counts[account] = value
    found = {account for account, _ in left} | counts.keys()
    return [
        StoredLease(account, window, ends.get((account, window), 0), left.get((account, window), 0), counts.get(account, 0))
        for account in sorted(found)
        for window in [max((w for a, w in left if a == account), default="")]
    ]
