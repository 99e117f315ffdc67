"""Every write to domains: one function, one transaction, its audit entry included; relays are told last.

Does not look into DNS: who verifies a domain has seen its proof (the operator, a demo). Invariant: relays know verified domains
only, and those with every active key.
"""

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.configuration import current
from postbud.console.domains.keys import MadeKey, make_keys
from postbud.console.domains.models import DkimKey, Domain, DomainStatus, KeyStatus
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
        _store(domain, made)
        audit.record(who, account, "domain.add", domain.id, after=_shown(domain))
    return domain


def verify_domain(who: audit.Actor, account: str, domain: str) -> Domain:
    """Let mail come from a domain, by the word of an operator. Idempotent.

    Raises:
        Refused: The account has no such domain, or `who` may not say so.
    """
    if who.kind not in _TRUSTED:
        raise Refused("", _("Only an operator can do that."))
    return _set_status(who, account, domain, "domain.verify", DomainStatus.VERIFIED)


def lose_domain(who: audit.Actor, account: str, domain: str) -> Domain:
    """Let no mail come from a domain whose proof is gone. Idempotent.

    Raises:
        Refused: The account has no such domain.
    """
    return _set_status(who, account, domain, "domain.lose", DomainStatus.LOST)


def rotate_keys(who: audit.Actor, account: str, domain: str) -> Domain:
    """Make new keys and sign with them from now on; the former stay in the table, for signatures that are under way.

    Raises:
        Refused: The account has no such domain.
    """
    name = Domain.objects.filter(account=account, id=domain).values_list("name", flat=True).first()
    made = make_keys(account, name) if name is not None else []
    with write():
        found = _locked(account, domain)
        before = _selectors(found)
        found.keys.filter(status=KeyStatus.ACTIVE).update(status=KeyStatus.RETIRED)
        _store(found, made)
        told = {"selectors": before}, {"selectors": _selectors(found)}
        audit.record(who, account, "domain.rotate", found.id, before=told[0], after=told[1])
        _publish(found)
    return found


def remove_domain(who: audit.Actor, account: str, domain: str) -> None:
    """Forget a domain and its keys.

    Raises:
        Refused: The account has no such domain.
    """
    with write():
        found = _locked(account, domain)
        audit.record(who, account, "domain.remove", found.id, before=_shown(found))
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


def _set_status(who: audit.Actor, account: str, domain: str, action: str, wanted: DomainStatus) -> Domain:
    with write():
        found = _locked(account, domain)
        if found.status == wanted:
            return found
        before, found.status = str(found.status), wanted
        if wanted is DomainStatus.VERIFIED:
            found.verified_at = timezone.now()
        found.save()
        audit.record(who, account, action, found.id, before={"status": before}, after={"status": str(wanted)})
        _publish(found)
    return found


def _publish(domain: Domain) -> None:
    key = f"{domain.account_id}/{domain.name}"
    if domain.status != DomainStatus.VERIFIED:
        withdraw("domain", key)
        return
    active = domain.keys.filter(status=KeyStatus.ACTIVE).order_by("id")
    sealed = tuple(SealedKey(selector=one.selector, sealed=bytes(one.sealed)) for one in active)
    publish(DomainRecord(id=key, account=domain.account_id, name=domain.name, keys=sealed))


def _store(domain: Domain, made: list[MadeKey]) -> None:
    for key in made:
        DkimKey.objects.create(
            domain=domain, selector=key.selector, algorithm=key.algorithm, sealed=key.sealed, public_record=key.public_record
        )


def _locked(account: str, domain: str) -> Domain:
    found = Domain.objects.select_for_update().filter(account=account, id=domain).first()
    if found is None:
        raise Refused("domain", _("There is no such domain."))
    return found


def _selectors(domain: Domain) -> list[str]:
    return list(domain.keys.filter(status=KeyStatus.ACTIVE).order_by("id").values_list("selector", flat=True))


def _shown(domain: Domain) -> dict[str, Any]:
    return {"name": domain.name, "status": str(domain.status), "selectors": _selectors(domain)}
