"""Every write to servers: one function, one transaction, its audit entry included; relays are told last.

Credentials are in `credentials`. Invariant: a server's kind never changes, since rules and reputation hang on it.
"""

from typing import Any

from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.accounts.services import clean_name
from postbud.console.refused import Refused
from postbud.console.servers.credentials import (
    create_credential,
    pause_credential,
    resume_credential,
    revoke_credential,
    rotate_credential,
    update_credential,
)
from postbud.console.servers.models import Server, ServerKind, ServerStatus
from postbud.console.servers.records import publish_server
from postbud.console.transaction import write

__all__ = [
    "create_credential",
    "create_server",
    "pause_credential",
    "pause_server",
    "rename_server",
    "resume_credential",
    "resume_server",
    "revoke_credential",
    "rotate_credential",
    "update_credential",
    "update_server",
]

_MOST_CAP = 10**9
_KEEP: Any = object()


def create_server(who: audit.Actor, account: str, name: str, kind: str, *, server_id: str | None = None) -> Server:
    """Make a server.

    Raises:
        Refused: The name is taken or cannot be, there is no such kind or account, or the plan allows no more.
    """
    if kind not in ServerKind.values:
        raise Refused("kind", _("There is no such kind of server."))
    server = Server(name=clean_name(name), kind=kind)
    if server_id is not None:
        server.id = server_id
    with write():
        found = Account.objects.select_for_update(of=("self",)).select_related("plan").filter(id=account).first()
        if found is None:
            raise Refused("account", _("There is no such account."))
        if found.status == AccountStatus.CLOSED:
            raise Refused("", _("The account is closed."))
        limit = found.plan.servers_limit
        if limit is not None and Server.objects.filter(account=account).count() >= limit:
            raise Refused("", _("The plan allows %d servers.") % limit)
        _free_name(account, server)
        server.account = found
        server.save(force_insert=True)
        audit.record(who, account, "server.create", server.id, after=_shown(server))
        publish_server(server)
    return server


def rename_server(who: audit.Actor, account: str, server: str, name: str) -> Server:
    """Give a server another name.

    Raises:
        Refused: As `update_server`.
    """
    return update_server(who, account, server, name=name)


def update_server(
    who: audit.Actor,
    account: str,
    server: str,
    *,
    name: str = _KEEP,
    hourly_cap: int | None = _KEEP,
    keep_content: bool = _KEEP,
    pool: str = _KEEP,
) -> Server:
    """Change what is named of a server. `pool` is for operators.

    Raises:
        Refused: The account has no such server, or a value cannot be.
    """
    given = {"name": name, "hourly_cap": hourly_cap, "keep_content": keep_content, "pool": pool}
    changes = {field: value for field, value in given.items() if value is not _KEEP}
    if "name" in changes:
        changes["name"] = clean_name(name)
    if changes.get("hourly_cap") is not None and not 0 < changes["hourly_cap"] <= _MOST_CAP:  # type: ignore[operator]  # a number here
        raise Refused("hourly_cap", _("A limit is a number above 0, or empty for none."))
    if "pool" in changes and who.kind not in ("operator", "command", "system"):
        raise Refused("pool", _("Only an operator can do that."))
    return _change(who, account, server, "server.update", changes)


def pause_server(who: audit.Actor, account: str, server: str) -> Server:
    """Take no mail for a server and send none, until resumed. Idempotent.

    Raises:
        Refused: The account has no such server, or it is blocked.
    """
    return _set_status(who, account, server, "server.pause", ServerStatus.PAUSED, ServerStatus.ACTIVE)


def resume_server(who: audit.Actor, account: str, server: str) -> Server:
    """End a pause. Idempotent.

    Raises:
        Refused: The account has no such server, or it is blocked.
    """
    return _set_status(who, account, server, "server.resume", ServerStatus.ACTIVE, ServerStatus.PAUSED)


def _set_status(who: audit.Actor, account: str, server: str, action: str, wanted: ServerStatus, before: ServerStatus) -> Server:
    with write():
        status = Server.objects.filter(account=account, id=server).values_list("status", flat=True).first()
        if status is not None and status not in (wanted, before):
            raise Refused("", _("The server is %s.") % ServerStatus(status).label)
        return _change(who, account, server, action, {"status": str(wanted)})


def _change(who: audit.Actor, account: str, server_id: str, action: str, changes: dict[str, Any]) -> Server:
    with write():
        server = Server.objects.select_for_update().filter(account=account, id=server_id).first()
        if server is None:
            raise Refused("server", _("There is no such server."))
        before = _shown(server)
        for name, value in changes.items():
            setattr(server, name, value)
        if "name" in changes:
            _free_name(account, server)
        told = audit.changed(before, _shown(server))
        if told[1]:
            server.save()
            audit.record(who, account, action, server.id, before=told[0], after=told[1])
            publish_server(server)
    return server


def _free_name(account: str, server: Server) -> None:
    if Server.objects.filter(account=account, name=server.name).exclude(id=server.id).exists():
        raise Refused("name", _("There is a server of that name."))


def _shown(server: Server) -> dict[str, Any]:
    return {
        "name": server.name,
        "kind": str(server.kind),
        "status": str(server.status),
        "pool": server.pool,
        "hourly_cap": server.hourly_cap,
        "keep_content": server.keep_content,
    }
