"""Every write to domains: one function, one transaction, its audit entry included; relays are told last.

Does not look into DNS: `checking` does, or somebody gives their word (an operator, a demo). Invariant: relays know verified
domains only, and those with every active key; a new key signs nothing before its record was seen.
"""

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.configuration import current
from postbud.console.domains.keys import MadeKey, make_keys
from postbud.console.domains.looking import PRESENT
from postbud.console.domains.models import DkimKey, Domain, DomainStatus, KeyStatus
from postbud.console.domains.records import Purpose
from postbud.console.link.publish import publish, withdraw
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.model.account import SYSTEM_ACCOUNT
from postbud.model.link import DomainRecord, SealedKey
from postbud.model.mailbox import MailboxError, parse_domain

MAX_DOMAINS = 1000  # of one account
_TRUSTED = ("operator", "command", "system")


def add_domain(who: audit.Actor, account: str, name: str) -> Domain:
    """Make a domain with its keys; mail may come from it once it is verified.

    Raises:
        Refused: The name is no domain, is there already, or is our own.
    """
    cleaned = clean_domain(account, name)
    made = make_keys(account, cleaned)
    with write():
        found = Account.objects.select_for_update().filter(id=account).exclude(status=AccountStatus.CLOSED).first()
        if found is None:
            raise Refused("account", _("There is no such account."))
        if Domain.objects.filter(account=account, name=cleaned).exists():
            raise Refused("name", _("The account has this domain already."))
        if Domain.objects.filter(account=account).count() >= MAX_DOMAINS:
            raise Refused("name", _("An account has at most %d domains.") % MAX_DOMAINS)
        domain = Domain.objects.create(account=found, name=cleaned)
        _store(domain, made, KeyStatus.PENDING)
        audit.record(who, account, "domain.add", domain.id, after=shown(domain))
    return domain


def verify_domain(who: audit.Actor, account: str, domain: str) -> Domain:
    """Let mail come from a domain, by the word of an operator. Idempotent.

    Raises:
        Refused: The account has no such domain, or `who` may not say so.
    """
    if who.kind not in _TRUSTED:
        raise Refused("", _("Only an operator can do that."))
    with write():
        found = locked(account, domain)
        if found.status == DomainStatus.VERIFIED and found.by_word:
            return found
        before, found.status, found.by_word = str(found.status), DomainStatus.VERIFIED, True
        found.verified_at, found.failing_since, found.warned_days = timezone.now(), None, 0
        found.keys.filter(status=KeyStatus.PENDING).update(status=KeyStatus.ACTIVE)
        found.save()
        told = {"status": str(found.status), "by_word": True}
        audit.record(who, account, "domain.verify", found.id, before={"status": before}, after=told)
        publish_domain(found)
    return found


def lose_domain(who: audit.Actor, account: str, domain: str) -> Domain:
    """Let no mail come from a domain whose proof is gone; a word that was given for it is taken back. Idempotent.

    Raises:
        Refused: The account has no such domain.
    """
    with write():
        found = locked(account, domain)
        if found.status == DomainStatus.LOST:
            return found
        before, found.status, found.by_word = str(found.status), DomainStatus.LOST, False
        found.save()
        audit.record(who, account, "domain.lose", found.id, before={"status": before}, after={"status": str(found.status)})
        publish_domain(found)
    return found


def rotate_keys(who: audit.Actor, account: str, domain: str) -> Domain:
    """Make new keys. They sign once their records are seen, and the former ones stop then; by an operator's word, at once.

    Raises:
        Refused: The account has no such domain, or keys from an earlier time still wait for their records.
    """
    name = Domain.objects.filter(account=account, id=domain).values_list("name", flat=True).first()
    made = make_keys(account, name) if name is not None else []
    with write():
        found = locked(account, domain)
        if found.keys.filter(status=KeyStatus.PENDING).exists():
            raise Refused("", _("New keys wait for their records already: publish those first."))
        before, status = _selectors(found), KeyStatus.PENDING
        if found.by_word:
            found.keys.filter(status=KeyStatus.ACTIVE).update(status=KeyStatus.RETIRED, retired_at=timezone.now())
            status = KeyStatus.ACTIVE
        _store(found, made, status)
        found.next_check_at = timezone.now()
        found.save(update_fields=["next_check_at"])
        after = {"selectors": [key.selector for key in made]}
        audit.record(who, account, "domain.rotate", found.id, before={"selectors": before}, after=after)
        publish_domain(found)
    return found


def remove_domain(who: audit.Actor, account: str, domain: str) -> None:
    """Forget a domain and its keys.

    Raises:
        Refused: The account has no such domain.
    """
    with write():
        found = locked(account, domain)
        audit.record(who, account, "domain.remove", found.id, before=shown(found))
        withdraw("domain", f"{account}/{found.name}")
        found.delete()


def clean_domain(account: str, name: str) -> str:
    """Give a domain's name as it is kept: lower case, A-labels.

    Raises:
        Refused: It is none, or one that only the installation itself sends from.
    """
    text = name.strip().lower().rstrip(".")
    try:
        cleaned = parse_domain(text)
    except MailboxError as error:
        raise Refused("name", _("This is no domain, such as example.com.")) from error
    if "." not in cleaned:
        raise Refused("name", _("This is no domain, such as example.com."))
    settings = current()
    own = {settings.hostname, settings.bounce_domain} - {""}
    if account != SYSTEM_ACCOUNT and (cleaned in own or cleaned.endswith(tuple(f".{one}" for one in own))):
        raise Refused("name", _("This domain is the installation's own."))
    return cleaned


def publish_domain(domain: Domain) -> None:
    """Tell relays what a domain is now. Inside of a transaction, last."""
    key = f"{domain.account_id}/{domain.name}"
    if domain.status != DomainStatus.VERIFIED:
        withdraw("domain", key)
        return
    active = domain.keys.filter(status=KeyStatus.ACTIVE).order_by("id")
    sealed = tuple(SealedKey(selector=one.selector, sealed=bytes(one.sealed)) for one in active)
    own = return_path(domain)
    publish(DomainRecord(id=key, account=domain.account_id, name=domain.name, keys=sealed, return_path=own))


def return_path(domain: Domain) -> str:
    """Give the domain's own name for our bounce host, as it was seen last; empty when it has none."""
    seen = (domain.sight or {}).get("records", [])
    purpose = Purpose.RETURN_PATH.value
    return next((one["name"] for one in seen if one["purpose"] == purpose and one["state"] == PRESENT), "")


def _store(domain: Domain, made: list[MadeKey], status: KeyStatus) -> None:
    for key in made:
        DkimKey.objects.create(
            domain=domain, selector=key.selector, algorithm=key.algorithm, sealed=key.sealed,
            public_record=key.public_record, status=status,
        )  # fmt: skip


def locked(account: str, domain: str) -> Domain:
    """Give a domain of an account, locked until the transaction ends.

    Raises:
        Refused: The account has no such domain.
    """
    found = Domain.objects.select_for_update().filter(account=account, id=domain).first()
    if found is None:
        raise Refused("domain", _("There is no such domain."))
    return found


def _selectors(domain: Domain) -> list[str]:
    return list(domain.keys.filter(status=KeyStatus.ACTIVE).order_by("id").values_list("selector", flat=True))


def shown(domain: Domain) -> dict[str, Any]:
    """Give what the audit log tells of a domain."""
    return {"name": domain.name, "status": str(domain.status), "selectors": _selectors(domain)}
