"""The audit log: one entry for every write, chained by hash for each account, so that a change of the past shows.

An entry's `hash` is SHA-256 over the canonical JSON (sorted keys, no spaces, UTF-8) of its fields and the hash before it. The
head row of a chain is locked while an entry is added; it also tells of entries cut off at the end. Invariants: entries are
written in the transaction of the write that they tell of; they hold no secret. The empty account is the installation's chain.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.http import HttpRequest

from postbud.console.accounts.models import AuditEntry, AuditHead, Person

INSTALLATION = ""
GENESIS = "0" * 64
_MAX_ACTOR = 254
_MAX_OBJECT = 400
_MAX_AGENT = 300
_AT_ONCE = 1000
_NOT_TOLD = frozenset({"secret", "password", "token", "secret_hash", "former_hash", "token_hash", "sealed", "key"})
_HASHED = (
    "account", "number", "actor_kind", "actor", "action", "object_kind", "object_id", "before", "after", "address",
    "user_agent", "previous_hash",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes: `kind` is person, operator, api, command or system; `id` names them within it."""

    kind: str
    id: str
    address: str = ""
    user_agent: str = ""


SYSTEM = Actor("system", "postbud")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where a chain breaks: the number of the entry, and what is wrong with it."""

    number: int
    text: str


def actor_of(request: HttpRequest) -> Actor:
    """Give who is behind a request. An operator outside of their own accounts acts as one."""
    person = request.user
    address, agent = request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_USER_AGENT", "")
    if not isinstance(person, Person):
        return Actor("person", "", address, agent)
    as_operator = person.is_operator and getattr(request, "membership", None) is None
    return Actor("operator" if as_operator else "person", person.id, address, agent)


def record(
    who: Actor,
    account: str,
    action: str,
    object_id: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Add an entry. `action` is `<kind of object>.<what was done>`. Inside of `transaction.write()` only.

    Raises:
        RuntimeError: There is no transaction.
        ValueError: `before` or `after` names a secret.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("an audit entry is written in the transaction of what it tells of")
    AuditHead.objects.bulk_create([AuditHead(account=account, hash=GENESIS)], ignore_conflicts=True)
    head = AuditHead.objects.select_for_update().get(account=account)
    entry = AuditEntry(
        account=account,
        number=head.number + 1,
        at=datetime.fromtimestamp(time.time(), UTC),
        actor_kind=who.kind,
        actor=_plain(who.id)[:_MAX_ACTOR],
        action=action,
        object_kind=action.partition(".")[0],
        object_id=_plain(object_id)[:_MAX_OBJECT],
        before=_told(before),
        after=_told(after),
        address=_plain(who.address)[:45],
        user_agent=_plain(who.user_agent)[:_MAX_AGENT],
        previous_hash=head.hash,
    )
    entry.hash = hash_of(entry)
    entry.save(force_insert=True)
    AuditHead.objects.filter(account=account).update(number=entry.number, hash=entry.hash)
    return entry


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keep only what differs between two sets of values."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def hash_of(entry: AuditEntry) -> str:
    """Give the hash that an entry should bear."""
    told: dict[str, Any] = {name: getattr(entry, name) for name in _HASHED}
    told["at"] = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def verify_chain(account: str) -> list[Flaw]:
    """Read a chain from its beginning and give where it breaks; empty when it is whole."""
    flaws: list[Flaw] = []
    number, previous = 0, GENESIS
    for entry in _entries(account):
        number += 1
        if entry.number != number:
            flaws.append(Flaw(number, f"missing: the next entry is {entry.number}"))
            number = entry.number
        if entry.previous_hash != previous:
            flaws.append(Flaw(entry.number, "does not follow the entry before it"))
        if hash_of(entry) != entry.hash:
            flaws.append(Flaw(entry.number, "was changed"))
        previous = entry.hash
    head = AuditHead.objects.filter(account=account).first()
    ends = (head.number, head.hash) if head is not None else (0, GENESIS)
    if ends != (number, previous):
        flaws.append(Flaw(number, f"the chain ended at {ends[0]}: entries were cut off or added"))
    return flaws


def _entries(account: str) -> Iterator[AuditEntry]:
    last = 0
    while page := list(AuditEntry.objects.filter(account=account, number__gt=last).order_by("number")[:_AT_ONCE]):
        yield from page
        last = page[-1].number


def _told(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    named = sorted(_NOT_TOLD & set(values))
    if named:
        raise ValueError(f"the audit log holds no secrets: {', '.join(named)}")
    told: dict[str, Any] = _plainly(values)
    return told


def _plainly(value: Any) -> Any:
    """Give a value as JSON of both databases gives it back: no other types, no floats, no strange characters."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plainly(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plainly(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    return _plain(str(value))


def _plain(text: str) -> str:
    """Take away what a database column or a hash cannot hold: NUL, lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
