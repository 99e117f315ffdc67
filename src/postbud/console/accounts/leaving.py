"""An account that leaves: all that is known of it as a file, and its erasure thirty days after it was closed.

Owns what is handed over and in which order it goes; each batch is one transaction. Invariants: a secret or its hash is in no
file; after erasure no table holds a row of the account but the account itself, without its name, and one entry of the
installation's audit log that says when; people who belong to nothing else go too.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from postbud.console.accounts import audit
from postbud.console.accounts.identity import evidence_path, identity_of
from postbud.console.accounts.models import (
    Account,
    AccountStatus,
    AuditEntry,
    AuditHead,
    Invitation,
    Membership,
    Person,
    SenderIdentity,
)
from postbud.console.api.models import ManagementKey
from postbud.console.configuration import current
from postbud.console.domains.models import Domain
from postbud.console.hooks.models import Attempt, Endpoint, Hook
from postbud.console.link.content import ContentStore
from postbud.console.link.models import Command, Content, QuotaLease, QuotaWindow
from postbud.console.link.publish import withdraw
from postbud.console.mail import queries
from postbud.console.mail.export import as_ndjson
from postbud.console.mail.models import DeliveryRow, EventRow, LatencyBin, MessageRow, Rollup, SavedView
from postbud.console.mail.queries import Search
from postbud.console.servers.models import Credential, Server
from postbud.console.transaction import write

ERASED_AFTER = timedelta(days=30)
ERASED_NAME = "–"
_AT_ONCE = 500
_SECRET = ("secret_hash", "former_hash", "sealed", "sealed_secret", "sealed_former")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def everything(account: Account, now: datetime) -> Iterator[bytes]:
    """Give all that is known of an account, one JSON object a line; `kind` says what it is. Contents are not among it."""
    yield _line(
        "account", {"id": account.id, "name": account.name, "created_at": account.created_at, "plan": account.plan.name}
    )
    identity = identity_of(account.id)
    if identity is not None:
        yield _line("identity", _columns(identity))
    members = Membership.objects.select_related("person").filter(account=account).order_by("created_at")
    for one in members:
        yield _line("person", {"email": one.person.email, "name": one.person.name, "role": one.role, "since": one.created_at})
    kinds: list[tuple[str, Any]] = [
        ("server", Server.objects.filter(account=account)),
        ("credential", Credential.objects.filter(account=account)),
        ("domain", Domain.objects.filter(account=account)),
        ("webhook", Endpoint.objects.filter(account=account.id)),
        ("key", ManagementKey.objects.filter(account=account)),
    ]
    for kind, rows in kinds:
        for row in rows.order_by("id").iterator(chunk_size=_AT_ONCE):
            yield _line(kind, _columns(row))
    search = Search(account=account.id, start=_EARLIEST, end=now + timedelta(minutes=1))
    for line in as_ndjson(queries.every(search), {}):
        yield b'{"kind": "delivery", ' + line.lstrip(b"{")
    for entry in AuditEntry.objects.filter(account=account.id).order_by("number").iterator(chunk_size=_AT_ONCE):
        yield _line("audit", _columns(entry))


def erase_closed(now: datetime) -> int:
    """Erase accounts that were closed thirty days ago; give how many batches that took. Some a call: call again."""
    due = Account.objects.filter(status=AccountStatus.CLOSED, closed_at__lte=now - ERASED_AFTER, erased_at=None)
    account = due.order_by("closed_at").first()
    if account is None:
        return 0
    for batch in (_forget_mail, _forget_contents, _forget_figures):
        if batch(account.id):
            return 1
    _forget_the_rest(account, now)
    return 1


def _forget_mail(account: str) -> int:
    messages = list(EventRow.objects.filter(account=account).values_list("message", flat=True).distinct()[:_AT_ONCE])
    messages = messages or list(MessageRow.objects.filter(account=account).values_list("id", flat=True)[:_AT_ONCE])
    messages = messages or list(DeliveryRow.objects.filter(account=account).values_list("message", flat=True)[:_AT_ONCE])
    if messages:
        with write():
            EventRow.objects.filter(account=account, message__in=messages).delete()
            DeliveryRow.objects.filter(account=account, message__in=messages).delete()
            MessageRow.objects.filter(account=account, id__in=messages).delete()
    return len(messages)


def _forget_contents(account: str) -> int:
    messages = list(Content.objects.filter(account=account).values_list("message", flat=True)[:_AT_ONCE])
    return ContentStore(current().folder / "content").delete(account, messages) if messages else 0


def _forget_figures(account: str) -> int:
    """Forget roll-ups a day at a time: a transaction is never long."""
    first = Rollup.objects.filter(account=account).order_by("bucket_at").values_list("bucket_at", flat=True).first()
    first = (
        first or LatencyBin.objects.filter(account=account).order_by("bucket_at").values_list("bucket_at", flat=True).first()
    )
    if first is None:
        return 0
    with write():
        for table in (Rollup, LatencyBin):
            table.objects.filter(account=account, bucket_at__lt=first + timedelta(days=1)).delete()
    return 1


def _forget_the_rest(account: Account, now: datetime) -> None:
    people = set(Membership.objects.filter(account=account).values_list("person", flat=True))
    with write():
        for one in Domain.objects.filter(account=account):
            withdraw("domain", f"{account.id}/{one.name}")
        for kind, rows in (
            ("credential", Credential.objects.filter(account=account)),
            ("server", Server.objects.filter(account=account)),
        ):
            for identity in rows.values_list("id", flat=True):
                withdraw(kind, identity)
        withdraw("account", account.id)
        Attempt.objects.filter(account=account.id).delete()
        Hook.objects.filter(account=account.id).delete()
        Endpoint.objects.filter(account=account.id).delete()
        for table in (SavedView, Command, QuotaLease, QuotaWindow, AuditEntry, AuditHead):
            table.objects.filter(account=account.id).delete()
        for owned in (Credential, Server, Domain, SenderIdentity, ManagementKey, Membership, Invitation):
            owned.objects.filter(account=account).delete()
        for person in Person.objects.filter(id__in=people, is_operator=False, memberships=None):
            person.delete()
        account.name, account.erased_at, account.block_reference = ERASED_NAME, now, ""
        account.save()
        audit.record(audit.SYSTEM, audit.INSTALLATION, "account.erase", account.id, after={"closed_at": str(account.closed_at)})
    evidence_path(account.id).unlink(missing_ok=True)


def _columns(row: Any) -> dict[str, Any]:
    """Give the columns of a row but its secrets; its own kind, if it has one, is `type`: `kind` says what the line is."""
    fields = row._meta.concrete_fields  # noqa: SLF001 -- Django documents _meta; it has no public name
    names = {field.attname: "type" if field.attname == "kind" else field.attname for field in fields}
    return {shown: getattr(row, name) for name, shown in names.items() if name not in _SECRET}


def _line(kind: str, values: dict[str, Any]) -> bytes:
    shown: Callable[[Any], str] = str
    return json.dumps({"kind": kind, **values}, default=shown, ensure_ascii=False).encode() + b"\n"
