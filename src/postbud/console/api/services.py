"""Every write about keys of the management API: one function, one transaction, its audit entry included."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.accounts.permissions import Permission
from postbud.console.accounts.services import clean_name
from postbud.console.api.models import ManagementKey, new_key_id
from postbud.console.refused import Refused
from postbud.console.servers.secrets import ensure_pepper, matches, new_management_key
from postbud.console.transaction import write
from postbud.model.api_key import MANAGEMENT_PREFIX, read_key

MOST_KEYS = 50  # of an account, without those that were revoked
GRANTED = (
    Permission.VIEW, Permission.CONTENT, Permission.SEND, Permission.SERVERS, Permission.DOMAINS, Permission.HOOKS,
    Permission.ACCOUNT,
)  # fmt: skip
_SEEN_EVERY = timedelta(minutes=1)


def create_key(
    who: audit.Actor, account: str, name: str, permissions: Sequence[str], held: Collection[Permission]
) -> tuple[ManagementKey, str]:
    """Make a key; give it with its text, which is shown once. `held`: what its maker may do.

    Raises:
        Refused: A value cannot be, something is granted that its maker does not hold, or there are too many.
    """
    wanted = [permission for permission in GRANTED if permission.value in permissions or permission is Permission.VIEW]
    unknown = set(permissions) - {permission.value for permission in GRANTED}
    if unknown or not set(wanted) <= set(held):
        raise Refused("permissions", _("A key can do no more than you can."))
    cleaned = clean_name(name)
    ensure_pepper()
    with write():
        found = Account.objects.select_for_update().filter(id=account).exclude(status=AccountStatus.CLOSED).first()
        if found is None:
            raise Refused("account", _("There is no such account."))
        if ManagementKey.objects.filter(account=account, revoked_at=None).count() >= MOST_KEYS:
            raise Refused("name", _("An account has at most %d keys. Revoke some.") % MOST_KEYS)
        identity = new_key_id()
        text, hashed = new_management_key(identity)
        key = ManagementKey.objects.create(
            id=identity, account=found, name=cleaned, permissions=[one.value for one in wanted], secret_hash=hashed,
            made_by=who.id,
        )  # fmt: skip
        audit.record(who, account, "key.create", key.id, after={"name": cleaned, "permissions": key.permissions})
    return key, text


def revoke_key(who: audit.Actor, account: str, key: str) -> ManagementKey:
    """Let a key open nothing any more. Again is harmless.

    Raises:
        Refused: The account has no such key.
    """
    with write():
        found = ManagementKey.objects.select_for_update().filter(account=account, id=key).first()
        if found is None:
            raise Refused("", _("There is no such key."))
        if found.revoked_at is None:
            found.revoked_at = timezone.now()
            found.save(update_fields=["revoked_at"])
            audit.record(who, account, "key.revoke", found.id, before={"name": found.name})
    return found


def key_of(text: str, now: datetime) -> ManagementKey | None:
    """Give the key that a text is, with its account, if it may be used now; when it was used is noted now and then."""
    parts = read_key(text, MANAGEMENT_PREFIX)
    if parts is None:
        return None
    key = ManagementKey.objects.select_related("account").filter(id=parts[0], revoked_at=None).first()
    if key is None or key.account.status == AccountStatus.CLOSED or not matches(key.secret_hash, parts[1]):
        return None
    if key.last_used_at is None or now - key.last_used_at > _SEEN_EVERY:
        with write():
            ManagementKey.objects.filter(id=key.id).update(last_used_at=now)
    return key
