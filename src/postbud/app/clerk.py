"""Does what the commands of administration ask, by the services that the pages use; gives rows to print.

Loaded after Django. Who acts is the command line, as the user of the operating system. Invariant: no secret is printed but
one that was made just now.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.utils import OperationalError, ProgrammingError
from django.utils import timezone

from postbud.console.accounts import audit, membership, people, services
from postbud.console.accounts.models import Account, AuditEntry, AuditHead, Membership, Person
from postbud.console.billing.models import Plan
from postbud.console.billing.services import create_plan, find_plan, update_plan
from postbud.console.domains import services as domains
from postbud.console.domains.models import Domain
from postbud.console.link import services as link
from postbud.console.link.models import Node
from postbud.console.refused import Refused
from postbud.console.servers import services as servers
from postbud.console.servers.models import Credential, Server

__all__ = ["Refused", "act"]

Row = dict[str, Any]
Words = argparse.Namespace
_LIMITS = ("month_allowance", "hourly_cap", "servers_limit", "log_days", "content_days")
_MOST_ENTRIES = 1000


def act(name: str, action: str, words: Words) -> tuple[list[Row], bool]:
    """Run one command: give rows to print, and whether all is well.

    Raises:
        Refused: It cannot be done; the text says why.
    """
    try:
        if (name, action) == ("audit", "verify"):
            return _verify(words)
        return _ACTS[name, action](words), True
    except (OperationalError, ProgrammingError) as error:
        if "no such table" in str(error) or "does not exist" in str(error):
            raise Refused("", "there is no console yet: start `postbud serve` or `postbud console` once") from error
        raise Refused("", f"the console's database does not answer: {error}") from error


def _who() -> audit.Actor:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        name = str(os.getuid())
    return audit.Actor("command", name)


# -- accounts, people, plans --


def _account(account: Account) -> Row:
    return {
        "id": account.id,
        "name": account.name,
        "status": str(account.status),
        "plan": account.plan.name,
        "hourly_cap": account.hourly_cap,
        "block_reference": account.block_reference,
        "created_at": _at(account.created_at),
    }


def _account_list(_: Words) -> list[Row]:
    return [_account(one) for one in Account.objects.select_related("plan").order_by("id")]


def _account_create(words: Words) -> list[Row]:
    owner = people.find_person(words.owner) if words.owner else None
    plan = find_plan(words.plan) if words.plan else None
    return [_account(services.create_account(_who(), words.name, owner=owner, plan=plan))]


def _account_limits(words: Words) -> list[Row]:
    cap = words.hourly_cap if words.hourly_cap is not None else services.find_account(words.account).hourly_cap
    return [_account(services.set_limits(_who(), words.account, plan=words.plan, hourly_cap=cap or None))]


def _of_account(function: Callable[[audit.Actor, str], Account]) -> Callable[[Words], list[Row]]:
    return lambda words: [_account(function(_who(), words.account))]


def _person(person: Person) -> Row:
    return {
        "id": person.id,
        "email": person.email,
        "name": person.name,
        "operator": person.is_operator,
        "active": person.is_active,
        "last_login": _at(person.last_login),
    }


def _person_list(words: Words) -> list[Row]:
    if words.account is None:
        return [_person(one) for one in Person.objects.order_by("id")]
    members = Membership.objects.filter(account=words.account).select_related("person").order_by("created_at")
    return [{**_person(one.person), "role": str(one.role)} for one in members]


def _person_create(words: Words) -> list[Row]:
    password = _password() if words.password_stdin else None
    return [_person(people.create_person(_who(), words.email, password, name=words.name, operator=words.operator))]


def _person_join(words: Words) -> list[Row]:
    person = people.find_person(words.person)
    member = membership.add_member(_who(), words.account, person.id, words.role)
    return [{**_person(person), "account": member.account_id, "role": str(member.role)}]


def _person_password(words: Words) -> list[Row]:
    if not words.password_stdin:
        raise Refused("", "give the password on standard input, with --password-stdin")
    return [_person(people.set_password(_who(), people.find_person(words.person).id, _password()))]


def _person_operator(words: Words) -> list[Row]:
    return [_person(people.set_operator(_who(), people.find_person(words.person).id, operator=not words.off))]


def _person_active(active: bool) -> Callable[[Words], list[Row]]:  # noqa: FBT001 (names which of two)
    return lambda words: [_person(people.set_active(_who(), people.find_person(words.person).id, active=active))]


def _plan(plan: Plan) -> Row:
    return {"id": plan.id, "name": plan.name, **{limit: getattr(plan, limit) for limit in _LIMITS}}


def _plan_create(words: Words) -> list[Row]:
    given = {limit: getattr(words, limit) for limit in _LIMITS if getattr(words, limit) is not None}
    return [_plan(create_plan(_who(), words.name, **given))]


def _plan_update(words: Words) -> list[Row]:
    given: dict[str, int | None] = {}
    for limit in _LIMITS:
        text = getattr(words, limit)
        if text == "none":
            given[limit] = None
        elif text is not None:
            try:
                given[limit] = int(text)
            except ValueError as error:
                raise Refused(limit, f"{limit} is a number, or none") from error
    return [_plan(update_plan(_who(), find_plan(words.plan).id, name=words.name, **given))]


# -- servers, credentials, domains --


def _server(server: Server) -> Row:
    return {
        "id": server.id,
        "account": server.account_id,
        "name": server.name,
        "kind": str(server.kind),
        "status": str(server.status),
        "hourly_cap": server.hourly_cap,
        "created_at": _at(server.created_at),
    }


def _server_list(words: Words) -> list[Row]:
    found = Server.objects.order_by("account_id", "id")
    return [_server(one) for one in (found if words.account is None else found.filter(account=words.account))]


def _owner(kind: type[Server | Credential | Domain], object_id: str, text: str) -> str:
    account: str | None = kind.objects.filter(id=object_id).values_list("account_id", flat=True).first()
    if account is None:
        raise Refused("", text)
    return account


def _of_server(function: Callable[[audit.Actor, str, str], Server]) -> Callable[[Words], list[Row]]:
    def run(words: Words) -> list[Row]:
        account = _owner(Server, words.server, "there is no such server")
        return [_server(function(_who(), account, words.server))]

    return run


def _server_rename(words: Words) -> list[Row]:
    account = _owner(Server, words.server, "there is no such server")
    return [_server(servers.rename_server(_who(), account, words.server, words.name))]


def _credential(credential: Credential) -> Row:
    return {
        "id": credential.id,
        "server": credential.server_id,
        "kind": str(credential.kind),
        "name": credential.name,
        "username": credential.username,
        "networks": credential.networks,
        "status": str(credential.status),
        "last_used_at": _at(credential.last_used_at),
        "last_address": credential.last_address,
    }


def _credential_list(words: Words) -> list[Row]:
    found = Credential.objects.order_by("account_id", "server_id", "id")
    if words.account is not None:
        found = found.filter(account=words.account)
    if words.server is not None:
        found = found.filter(server=words.server)
    return [_credential(one) for one in found]


def _credential_create(words: Words) -> list[Row]:
    account = _owner(Server, words.server, "there is no such server")
    credential, secret = servers.create_credential(
        _who(), account, words.server, kind=words.kind, name=words.name, networks=words.network, allow_from=words.allow_from,
        hourly_cap=words.hourly_cap,
    )  # fmt: skip
    return [{**_credential(credential), "secret": secret or None}]


def _credential_rotate(words: Words) -> list[Row]:
    account = _owner(Credential, words.credential, "there is no such credential")
    overlap = timedelta(hours=words.overlap_hours)
    credential, secret = servers.rotate_credential(_who(), account, words.credential, overlap)
    return [{**_credential(credential), "secret": secret, "former_until": _at(credential.former_until)}]


def _of_credential(function: Callable[[audit.Actor, str, str], Credential]) -> Callable[[Words], list[Row]]:
    def run(words: Words) -> list[Row]:
        account = _owner(Credential, words.credential, "there is no such credential")
        return [_credential(function(_who(), account, words.credential))]

    return run


def _domain(domain: Domain) -> Row:
    return {
        "id": domain.id,
        "account": domain.account_id,
        "name": domain.name,
        "status": str(domain.status),
        "verified_at": _at(domain.verified_at),
    }


def _domain_list(words: Words) -> list[Row]:
    found = Domain.objects.order_by("account_id", "name")
    return [_domain(one) for one in (found if words.account is None else found.filter(account=words.account))]


def _of_domain(function: Callable[[audit.Actor, str, str], Domain]) -> Callable[[Words], list[Row]]:
    def run(words: Words) -> list[Row]:
        account = _owner(Domain, words.domain, "there is no such domain")
        return [_domain(function(_who(), account, words.domain))]

    return run


def _domain_remove(words: Words) -> list[Row]:
    domains.remove_domain(_who(), _owner(Domain, words.domain, "there is no such domain"), words.domain)
    return []


def _domain_keys(words: Words) -> list[Row]:
    domain = Domain.objects.filter(id=words.domain).first()
    if domain is None:
        raise Refused("", "there is no such domain")
    return [
        {
            "name": f"{key.selector}._domainkey.{domain.name}",
            "type": "TXT",
            "value": key.public_record,
            "algorithm": key.algorithm,
            "status": str(key.status),
        }
        for key in domain.keys.order_by("id")
    ]


# -- nodes, audit --


def _node(node: Node) -> Row:
    return {
        "id": node.id,
        "name": node.name,
        "created_at": _at(node.created_at),
        "revoked_at": _at(node.revoked_at),
        "last_seen_at": _at(node.last_seen_at),
    }


def _node_add(words: Words) -> list[Row]:
    node, token = link.add_node(_who(), words.name, timezone.now())
    return [{**_node(node), "token": token}]


def _audit_list(words: Words) -> list[Row]:
    entries = AuditEntry.objects.filter(account=words.account).order_by("-number")[:_MOST_ENTRIES]
    return [
        {
            "number": one.number,
            "at": _at(one.at),
            "who": f"{one.actor_kind} {one.actor}",
            "action": one.action,
            "object": one.object_id,
            "address": one.address,
        }
        for one in entries
    ]


def _verify(words: Words) -> tuple[list[Row], bool]:
    heads = AuditHead.objects.order_by("account").values_list("account", flat=True)
    chains = [words.account] if words.account is not None else list(heads)
    rows: list[Row] = []
    for chain in chains:
        flaws = audit.verify_chain(chain)
        rows.append(
            {"account": chain or "installation", "whole": not flaws, "flaws": [f"{one.number}: {one.text}" for one in flaws]}
        )
    return rows, all(row["whole"] for row in rows)


def _password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _at(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="seconds") if instant is not None else None


_ACTS: dict[tuple[str, str], Callable[[Words], list[Row]]] = {
    ("account", "list"): _account_list,
    ("account", "create"): _account_create,
    ("account", "show"): lambda words: [_account(services.find_account(words.account))],
    ("account", "pause"): _of_account(services.pause_account),
    ("account", "resume"): _of_account(services.resume_account),
    ("account", "block"): lambda words: [_account(services.block_account(_who(), words.account, words.reference))],
    ("account", "unblock"): _of_account(services.unblock_account),
    ("account", "close"): _of_account(services.close_account),
    ("account", "limits"): _account_limits,
    ("person", "list"): _person_list,
    ("person", "create"): _person_create,
    ("person", "join"): _person_join,
    ("person", "operator"): _person_operator,
    ("person", "password"): _person_password,
    ("person", "deactivate"): _person_active(False),
    ("person", "activate"): _person_active(True),
    ("plan", "list"): lambda _: [_plan(one) for one in Plan.objects.order_by("id")],
    ("plan", "create"): _plan_create,
    ("plan", "update"): _plan_update,
    ("server", "list"): _server_list,
    ("server", "create"): lambda words: [_server(servers.create_server(_who(), words.account, words.name, words.kind))],
    ("server", "rename"): _server_rename,
    ("server", "pause"): _of_server(servers.pause_server),
    ("server", "resume"): _of_server(servers.resume_server),
    ("credential", "list"): _credential_list,
    ("credential", "create"): _credential_create,
    ("credential", "rotate"): _credential_rotate,
    ("credential", "revoke"): _of_credential(servers.revoke_credential),
    ("credential", "pause"): _of_credential(servers.pause_credential),
    ("credential", "resume"): _of_credential(servers.resume_credential),
    ("domain", "list"): _domain_list,
    ("domain", "add"): lambda words: [_domain(domains.add_domain(_who(), words.account, words.name))],
    ("domain", "verify"): _of_domain(domains.verify_domain),
    ("domain", "keys"): _domain_keys,
    ("domain", "rotate"): _of_domain(domains.rotate_keys),
    ("domain", "lose"): _of_domain(domains.lose_domain),
    ("domain", "remove"): _domain_remove,
    ("node", "list"): lambda _: [_node(one) for one in Node.objects.order_by("id")],
    ("node", "add"): _node_add,
    ("node", "revoke"): lambda words: [_node(link.revoke_node(_who(), words.name, timezone.now()))],
    ("audit", "list"): _audit_list,
}
