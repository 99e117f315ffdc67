"""Who calls the API: a key in the Authorization header, and what it may do. A session's cookie counts for nothing here.

Invariants: a key in the address is refused, whatever else the request holds (input I10); an unknown, wrong or revoked key sound
the same; whose account it is comes from the key alone, so nobody can name another's.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest

from postbud.console.accounts.audit import Actor
from postbud.console.accounts.models import Account
from postbud.console.accounts.permissions import Permission
from postbud.console.api.problem import ApiProblem
from postbud.console.api.services import key_of
from postbud.console.servers.secrets import credential_of_key
from postbud.model.api_key import MANAGEMENT_PREFIX, PREFIX

_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key it is. `server`: the one server that a sending key is of; empty for a management key."""

    account: Account
    permissions: frozenset[str]
    key: str
    server: str = ""


class Key:
    """Lets a request in whose key holds a permission. `sending`: a key of the sending API will do as well."""

    def __init__(self, permission: Permission, *, sending: bool = False) -> None:
        self.permission = permission
        self._sending = sending

    def __call__(self, request: HttpRequest) -> Caller:
        """Give who calls.

        Raises:
            ApiProblem: Nobody that is known, or somebody who may not do this.
        """
        query = request.META.get("QUERY_STRING", "")
        if PREFIX in query or MANAGEMENT_PREFIX in query:
            told = "change the key: addresses end up in logs. Keys go into the Authorization header."
            raise ApiProblem(400, "key_in_query", "An API key stands in the address", told)
        caller = _caller(request, sending=self._sending)
        if caller is None:
            raise ApiProblem(401, "auth_failed", "The API key is not valid", "send it as `Authorization: Bearer pbm_…`")
        if not caller.server and self.permission.value not in caller.permissions:
            told = f"this key does not hold the permission `{self.permission.value}`; make one that does"
            raise ApiProblem(403, "not_allowed", "The key may not do this", told)
        return caller


def caller_of(request: HttpRequest) -> Caller:
    """Give who calls, once `Key` let them in."""
    caller: Any = request.auth  # type: ignore[attr-defined]  # set by django-ninja
    assert isinstance(caller, Caller)
    return caller


def actor_of(request: HttpRequest) -> Actor:
    """Give who writes, for the audit log."""
    return Actor("api", caller_of(request).key, request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_USER_AGENT", ""))


def now() -> datetime:
    """Give the instant."""
    return datetime.fromtimestamp(time.time(), UTC)


def _caller(request: HttpRequest, *, sending: bool) -> Caller | None:
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not 0 < len(text) <= _LONGEST_KEY:
        return None
    if text.startswith(MANAGEMENT_PREFIX):
        key = key_of(text, now())
        return Caller(key.account, frozenset(key.permissions), key.id) if key is not None else None
    credential = credential_of_key(text) if sending else None
    if credential is None:
        return None
    return Caller(credential.account, frozenset(), credential.id, credential.server_id)
