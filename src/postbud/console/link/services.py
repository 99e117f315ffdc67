"""Every write of the link but ingest: nodes, their state, commands, and what is cleared away.

One function, one transaction. Reads are in `directory`, leases in `quota`, content in `content`.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

import msgspec
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.ids import new_id
from postbud.console.link.models import Command, Node, QuotaLease
from postbud.console.link.publish import publish, withdraw
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.model.link import CommandKind, CommandRecord, NodeState, Selector

COMMAND_LASTS = timedelta(hours=24)
_TOKEN_OCTETS = 32
_TOKEN_PREFIX = "pbn_"  # noqa: S105  # not a secret: says what the token is of
_MAX_NAME = 120
_KEEP_COMMANDS = timedelta(days=90)
_KEEP_LEASES = timedelta(days=62)
_AT_ONCE = 1_000


def add_node(who: audit.Actor, name: str, now: datetime) -> tuple[Node, str]:
    """Make a node that may join; give it and its token, which is shown once.

    Raises:
        Refused: The name is empty, too long or taken.
    """
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise Refused("name", _("A node's name has 1 to %(most)d printable characters.") % {"most": _MAX_NAME})
    token = _TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_OCTETS)
    with write():
        if Node.objects.filter(name=name).exists():
            raise Refused("name", _("There is a node of this name."))
        node = Node.objects.create(id=new_id("nod"), name=name, token_hash=_hash(token), created_at=now)
        audit.record(who, audit.INSTALLATION, "node.add", node.id, after={"name": name})
    return node, token


def revoke_node(who: audit.Actor, name: str, now: datetime) -> Node:
    """Let a node in no more, from its next request on. Again is harmless.

    Raises:
        Refused: There is no node of that name or id.
    """
    with write():
        node = Node.objects.filter(name=name).first() or Node.objects.filter(id=name).first()
        if node is None:
            raise Refused("name", _("There is no such node."))
        if node.revoked_at is None:
            node.revoked_at = now
            node.save(update_fields=["revoked_at"])
            audit.record(who, audit.INSTALLATION, "node.revoke", node.id, before={"name": node.name})
    return node


def node_of_token(token: str) -> Node | None:
    """Give the node that a token is of, unless it was revoked."""
    return Node.objects.filter(token_hash=_hash(token), revoked_at=None).first()


def note_state(state: NodeState, node: Node | None, now: datetime) -> None:
    """Keep what a node says of itself. One without a token (this machine's) is made when it first speaks."""
    content = msgspec.to_builtins(state)
    with write():
        if node is not None:
            Node.objects.filter(id=node.id).update(state=content, last_seen_at=now)
            return
        name = state.node[:_MAX_NAME] or "local"
        if not Node.objects.filter(name=name, token_hash=None).update(state=content, last_seen_at=now):
            if Node.objects.filter(name=name).exists():
                return  # the name is of a node with a token, which would not speak here
            Node.objects.create(id=new_id("nod"), name=name, created_at=now, last_seen_at=now, state=content)


def issue_command(kind: CommandKind, selector: Selector, account: str, now: datetime) -> Command:
    """Tell all workers to do something to queued mail of an account; it is told until it expires. Inside of `write()` too."""
    expires_at = now + COMMAND_LASTS
    with write():
        command = Command.objects.create(
            id=new_id("cmd"),
            account=account,
            command=kind.value,
            selector=msgspec.to_builtins(selector),
            created_at=now,
            expires_at=expires_at,
        )
        publish(CommandRecord(id=command.id, command=kind, selector=selector, expires_at=expires_at))
    return command


def account_to_resend(command: str, message: str, now: datetime) -> str | None:
    """Give the account whose message a command that still holds wants sent again; None: there is no such command."""
    told = Command.objects.filter(id=command, command=CommandKind.RESEND.value, expires_at__gt=now).first()
    return told.account if told is not None and told.selector.get("message") == message else None


def clear(now: datetime) -> int:
    """Withdraw commands that expired, forget old ones and old leases; give how many rows changed. Some a call: call again."""
    with write():
        expired = list(Command.objects.filter(expires_at__lte=now, withdrawn=False).values_list("id", flat=True)[:_AT_ONCE])
        for command_id in expired:
            withdraw("command", command_id)
        Command.objects.filter(id__in=expired).update(withdrawn=True)
        forgotten = list(Command.objects.filter(expires_at__lte=now - _KEEP_COMMANDS).values_list("id", flat=True)[:_AT_ONCE])
        Command.objects.filter(id__in=forgotten).delete()
        leases = list(QuotaLease.objects.filter(at__lte=now - _KEEP_LEASES).values_list("id", flat=True)[:_AT_ONCE])
        QuotaLease.objects.filter(id__in=leases).delete()
    return len(expired) + len(forgotten) + len(leases)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
