"""Every write that people make to webhooks: one function, one transaction, its audit entry included."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import connection

from postbud.console.accounts import audit
from postbud.console.configuration import current
from postbud.console.fields import to_micros
from postbud.console.hooks.models import Endpoint, EndpointStatus, Hook, HookState
from postbud.console.hooks.payload import TEST_TYPE, TYPES, test_body
from postbud.console.hooks.secrets import new_secret, open_secret, seal_secret
from postbud.console.ids import new_id
from postbud.console.transaction import write
from postbud.net.guard import Guard
from postbud.net.guarded import UrlRefused, check_url

KINDS = (*TYPES.values(),)
MAX_ENDPOINTS = 20
MAX_WAITING = 100_000  # of one endpoint; the oldest beyond are dropped
KEEP_WAITING = timedelta(days=7)
KEEP_LOG = timedelta(days=30)
_MAX_REPLAYED = 10_000
_PRUNED_AT_ONCE = 2_000


class EndpointRefused(ValueError):  # noqa: N818 (names the answer)
    """An endpoint cannot be as asked: `field` says which part, the text what to change."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


def guard() -> tuple[Guard, Sequence[int]]:
    """Give which addresses and ports may be called: the public internet, and what the operator's settings add."""
    settings = current()
    networks, ports = settings.hook_networks, settings.hook_ports
    if settings.demo:  # nothing leaves the machine, and a developer's own server on it may be called
        return Guard(allowed=[*networks, "127.0.0.0/8"]), range(1, 65536)
    return Guard(allowed=networks), ports


def create_endpoint(
    who: audit.Actor, account: str, url: str, kinds: Sequence[str], now: datetime, *, server: str = "", description: str = ""
) -> tuple[Endpoint, str]:
    """Make an endpoint; give it with its secret, which is shown once.

    Raises:
        EndpointRefused: The URL may not be called, a kind is unknown, or the account has `MAX_ENDPOINTS`.
    """
    _check(url, kinds)
    secret = new_secret()
    with write():
        if Endpoint.objects.filter(account=account).count() >= MAX_ENDPOINTS:
            raise EndpointRefused("url", f"an account has at most {MAX_ENDPOINTS} endpoints")
        endpoint_id = new_id("whk")
        endpoint = Endpoint.objects.create(
            id=endpoint_id,
            account=account,
            server=server,
            url=url,
            description=description,
            kinds=sorted(set(kinds)),
            sealed_secret=seal_secret(endpoint_id, secret),
            created_at=now,
        )
        audit.record(who, account, "endpoint.create", endpoint.id, after=_shown(endpoint))
    return endpoint, secret


def update_endpoint(
    who: audit.Actor, account: str, endpoint_id: str, url: str, kinds: Sequence[str], *, server: str = "", description: str = ""
) -> Endpoint:
    """Change where and what of. What waits is sent to the new URL.

    Raises:
        EndpointRefused: As `create_endpoint`.
        Endpoint.DoesNotExist: The account has no such endpoint.
    """
    _check(url, kinds)
    with write():
        endpoint = Endpoint.objects.get(account=account, id=endpoint_id)
        before = _shown(endpoint)
        endpoint.url, endpoint.server, endpoint.description = url, server, description
        endpoint.kinds = sorted(set(kinds))
        endpoint.save()
        audit.record(who, account, "endpoint.update", endpoint.id, before=before, after=_shown(endpoint))
    return endpoint


def rotate_secret(who: audit.Actor, account: str, endpoint_id: str, now: datetime, overlap: timedelta) -> str:
    """Make a new secret; until the overlap's end posts are signed with both. Gives the new one, which is shown once."""
    secret = new_secret()
    with write():
        endpoint = Endpoint.objects.get(account=account, id=endpoint_id)
        former = open_secret(endpoint.id, bytes(endpoint.sealed_secret))
        endpoint.sealed_former = seal_secret(f"{endpoint.id}/former", former)
        endpoint.former_until = now + overlap
        endpoint.sealed_secret = seal_secret(endpoint.id, secret)
        endpoint.save()
        audit.record(who, account, "endpoint.rotate_secret", endpoint.id)
    return secret


def set_active(who: audit.Actor, account: str, endpoint_id: str, *, active: bool) -> Endpoint:
    """Pause an endpoint, or call it again: then what waits is sent. Idempotent."""
    with write():
        endpoint = Endpoint.objects.get(account=account, id=endpoint_id)
        before = endpoint.status
        endpoint.status = EndpointStatus.ACTIVE if active else EndpointStatus.PAUSED
        if active:
            endpoint.failing_since = None
        endpoint.save()
        action = "endpoint.resume" if active else "endpoint.pause"
        audit.record(who, account, action, endpoint.id, before={"status": before}, after={"status": endpoint.status})
    return endpoint


def delete_endpoint(who: audit.Actor, account: str, endpoint_id: str) -> None:
    """Remove an endpoint with its outbox and log."""
    with write():
        endpoint = Endpoint.objects.get(account=account, id=endpoint_id)
        Hook.objects.filter(account=account, endpoint=endpoint.id).delete()
        audit.record(who, account, "endpoint.delete", endpoint.id, before=_shown(endpoint))
        endpoint.delete()


def send_test(who: audit.Actor, account: str, endpoint_id: str, now: datetime) -> Hook:
    """Put a test into the outbox."""
    with write():
        endpoint = Endpoint.objects.get(account=account, id=endpoint_id)
        hook = Hook.objects.create(
            account=account, endpoint=endpoint.id, event=new_id("evt"), kind=TEST_TYPE, body=test_body(endpoint.id, now),
            created_at=now, next_at=now,
        )  # fmt: skip
        audit.record(who, account, "endpoint.test", endpoint.id)
    return hook


def replay(who: audit.Actor, account: str, endpoint_id: str, now: datetime, hooks: Sequence[int] | None = None) -> int:
    """Send again: the named hooks, or all of an endpoint that expired or were dropped (the newest 10,000). Give how many."""
    with write():
        wanted = Hook.objects.filter(account=account, endpoint=endpoint_id)
        if hooks is None:
            wanted = wanted.filter(state__in=(HookState.EXPIRED, HookState.DROPPED))
        else:
            wanted = wanted.filter(id__in=list(hooks)[:_MAX_REPLAYED]).exclude(state=HookState.WAITING)
        ids = list(wanted.order_by("-id").values_list("id", flat=True)[:_MAX_REPLAYED])
        count = 0
        for start in range(0, len(ids), 500):
            count += Hook.objects.filter(account=account, id__in=ids[start : start + 500]).update(
                state=HookState.WAITING, attempts=0, next_at=to_micros(now), finished_at=None
            )
        audit.record(who, account, "endpoint.replay", endpoint_id, after={"hooks": count})
    return count


_OVERFULL = """
SELECT account, endpoint, count(*) FROM hooks_hook WHERE state = 'waiting'
GROUP BY account, endpoint HAVING count(*) > %s
"""  # all accounts: the outbox's size is the installation's matter
_DROP_OLDEST = """
UPDATE hooks_hook SET state = 'dropped', finished_at = %s WHERE account = %s AND id IN (
    SELECT id FROM hooks_hook WHERE account = %s AND endpoint = %s AND state = 'waiting' ORDER BY id LIMIT %s)
"""
# all accounts: what is too old is so for everybody
_DROP_OLD = "UPDATE hooks_hook SET state = 'dropped', finished_at = %s WHERE state = 'waiting' AND created_at < %s"
_FORGET = """
DELETE FROM hooks_hook WHERE id IN (
    SELECT id FROM hooks_hook WHERE state <> 'waiting' AND created_at < %s ORDER BY id LIMIT %s)
"""  # all accounts: as above
_FORGET_ATTEMPTS = """
DELETE FROM hooks_attempt WHERE id IN (SELECT id FROM hooks_attempt WHERE at < %s ORDER BY id LIMIT %s)
"""  # all accounts: as above


def prune(now: datetime) -> int:
    """Keep the outbox within its age and size (row 59), and forget old posts; give how many rows changed."""
    changed = 0
    at = to_micros(now)
    with write(), connection.cursor() as cursor:
        cursor.execute(_OVERFULL, (MAX_WAITING,))
        for account, endpoint, waiting in cursor.fetchall():
            cursor.execute(_DROP_OLDEST, (at, account, account, endpoint, waiting - MAX_WAITING))
            changed += cursor.rowcount
        cursor.execute(_DROP_OLD, (at, to_micros(now - KEEP_WAITING)))
        changed += cursor.rowcount
    for statement in (_FORGET, _FORGET_ATTEMPTS):
        while True:
            with write(), connection.cursor() as cursor:
                cursor.execute(statement, (to_micros(now - KEEP_LOG), _PRUNED_AT_ONCE))
                gone = cursor.rowcount
            changed += gone
            if gone < _PRUNED_AT_ONCE:
                break
    return int(changed)


def _check(url: str, kinds: Sequence[str]) -> None:
    allowed, ports = guard()
    try:
        check_url(url, allowed, ports)
    except UrlRefused as refused:
        raise EndpointRefused("url", str(refused)) from refused
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise EndpointRefused("kinds", f"unknown: {', '.join(unknown)}")


def _shown(endpoint: Endpoint) -> dict[str, object]:
    kinds = endpoint.kinds if isinstance(endpoint.kinds, list) else json.loads(endpoint.kinds)
    return {"url": endpoint.url, "server": endpoint.server, "kinds": kinds, "description": endpoint.description}
