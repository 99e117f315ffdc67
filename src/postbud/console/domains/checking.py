"""Looking after domains: what a look at DNS changes, and when the next one is.

Owns the rules of proof: a proof that is seen lets mail come from the domain; one that is gone is told on days 1, 3 and 6, and
on day 7 sending stops; trouble of name servers changes nothing. DNS is asked outside of transactions, what was seen is written
in one. Invariant: whatever an operator gave by word, DNS does not take.
"""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Membership, Role
from postbud.console.configuration import current
from postbud.console.domains import services
from postbud.console.domains.looking import PRESENT, Dmarc, Seen, Sight, look
from postbud.console.domains.models import DkimKey, Domain, DomainStatus, KeyStatus
from postbud.console.domains.records import Key, Purpose, Wanted, proof_of, provider_of, wanted_records
from postbud.console.installation import installation_key
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.net.authority import Authority, fresh
from postbud.net.dns import Resolver, ResolverSettings
from postbud.net.guard import Guard

LOST_AFTER = timedelta(days=7)
WARNED_ON = (1, 3, 6)  # days
RETIRED_LASTS = timedelta(days=7)  # the record of a former key, for mail that is under way
_FORGET_RETIRED = timedelta(days=90)
_EVERY_DAY = timedelta(hours=24)
_WHEN_FAILING = timedelta(hours=1)
_WHEN_LOST = timedelta(hours=6)
# age of a domain that is not proven yet, and how often it is looked at
_WHEN_PENDING = (
    (timedelta(hours=1), timedelta(minutes=2)),
    (timedelta(days=1), timedelta(minutes=15)),
    (timedelta(days=14), timedelta(hours=6)),
    (timedelta.max, timedelta(days=1)),
)
_AT_ONCE = 20
_DNS_PORT = 53
_SYSTEM = audit.SYSTEM


def records_of(domain: Domain) -> list[Wanted]:
    """Give the records that a domain should have now: of keys that sign, and of keys that are to.

    DMARC only where it was seen that there is none: a second record would undo the first.
    """
    sight = sight_of(domain)
    lacks_dmarc = sight is not None and not sight.dmarc.policy and not sight.dmarc.unknown
    keys = domain.keys.exclude(status=KeyStatus.RETIRED).order_by("id")
    public = [Key(key.selector, key.algorithm, key.public_record) for key in keys]
    records = wanted_records(domain.name, proof(domain), public, current().bounce_domain)
    return [record for record in records if record.purpose is not Purpose.DMARC or lacks_dmarc]


def proof(domain: Domain) -> str:
    """Give the value of a domain's proof."""
    return proof_of(installation_key(), domain.account_id, domain.name)


def sight_of(domain: Domain) -> Sight | None:
    """Give what the last look saw."""
    if not domain.sight:
        return None
    try:
        return msgspec.convert(domain.sight, Sight)
    except msgspec.ValidationError:  # written by another version
        return None


def provider(domain: Domain) -> str:
    """Guess who runs the domain's name servers."""
    sight = sight_of(domain)
    return provider_of(sight.hosts) if sight is not None else ""


def check(account: str, domain: str, now: datetime) -> Domain:
    """Look at a domain's records now and write down what was seen.

    Raises:
        Refused: The account has no such domain.
    """
    found = Domain.objects.filter(account=account, id=domain).first()
    if found is None:
        raise Refused("domain", _("There is no such domain."))
    (sight,) = asyncio.run(_look_at([(found.name, records_of(found))], now))
    return note_sight(account, domain, sight, now)


def check_due(now: datetime) -> int:
    """Look at the domains whose time it is; give how many. Some a call: call again."""
    due = list(Domain.objects.filter(next_check_at__lte=now).order_by("next_check_at")[:_AT_ONCE])
    if not due:
        return 0
    sights = asyncio.run(_look_at([(one.name, records_of(one)) for one in due], now))
    for domain, sight in zip(due, sights, strict=True):
        try:
            note_sight(domain.account_id, domain.id, sight, now)
        except Refused:
            continue  # it was removed meanwhile
    return len(due)


async def _look_at(domains: list[tuple[str, list[Wanted]]], now: datetime) -> list[Sight]:
    settings = current()
    if settings.demo and not settings.nameservers:  # which has no DNS: its records are taken as published
        return [_all_there(wanted, now) for _, wanted in domains]
    servers = tuple((host.strip("[]"), int(port)) for host, _, port in (one.rpartition(":") for one in settings.nameservers))
    resolver = Resolver(fresh(ResolverSettings(nameservers=servers)), time.monotonic)
    guard = Guard(allowed=settings.dns_networks)
    port = servers[0][1] if servers else _DNS_PORT

    async def one(name: str, wanted: list[Wanted]) -> Sight:
        authority = Authority(name, resolver, guard, port, time.monotonic)
        await authority.find()
        sight = await look(name, wanted, authority.lookup, now)
        return msgspec.structs.replace(sight, zone=authority.zone, hosts=authority.hosts)

    return list(await asyncio.gather(*(one(name, wanted) for name, wanted in domains)))


def _all_there(wanted: list[Wanted], now: datetime) -> Sight:
    seen = [Seen(one.purpose.value, one.name, PRESENT, one.selector) for one in wanted if one.purpose is not Purpose.DMARC]
    return Sight(at=now, records=tuple(seen), dmarc=Dmarc())


def note_sight(account: str, domain: str, sight: Sight, now: datetime, dice: Callable[[], float] = random.random) -> Domain:
    """Write down what was seen, and what follows from it: keys begin to sign, mail may come, somebody is warned, mail stops.

    Raises:
        Refused: The account has no such domain.
    """
    with write():
        found = services.locked(account, domain)
        before = _told(found)
        found.sight, found.checked_at = msgspec.to_builtins(sight), now
        if sight.proven or found.by_word:
            _activate(found, sight, now)
        if sight.proven:
            _proven(found, now)
        elif sight.proven is False and found.status == DomainStatus.VERIFIED and not found.by_word:
            _failing(found, now)
        found.next_check_at = now + _pause(found, now) * (0.9 + 0.2 * dice())
        found.save()
        found.keys.filter(status=KeyStatus.RETIRED, retired_at__lte=now - _FORGET_RETIRED).delete()
        after = _told(found)
        if before != after:
            action = _action(before, after)
            audit.record(_SYSTEM, account, action, found.id, before=before, after=after)
            services.publish_domain(found)
    return found


def _activate(domain: Domain, sight: Sight, now: datetime) -> None:
    """Sign with keys whose records are there; a key takes the place of the one with its algorithm."""
    present = {seen.selector for seen in sight.of(Purpose.DKIM) if seen.state == PRESENT}
    for key in domain.keys.filter(status=KeyStatus.PENDING, selector__in=present):
        same = DkimKey.objects.filter(domain=domain, status=KeyStatus.ACTIVE, algorithm=key.algorithm)
        same.update(status=KeyStatus.RETIRED, retired_at=now)
        key.status = KeyStatus.ACTIVE
        key.save(update_fields=["status"])


def _proven(domain: Domain, now: datetime) -> None:
    domain.failing_since, domain.warned_days = None, 0
    if domain.status != DomainStatus.VERIFIED:
        domain.status, domain.verified_at = DomainStatus.VERIFIED, now


def _failing(domain: Domain, now: datetime) -> None:
    domain.failing_since = domain.failing_since or now
    gone = now - domain.failing_since
    if gone >= LOST_AFTER:
        domain.status = DomainStatus.LOST
        _tell_people(domain, 0)
        return
    due = max((day for day in WARNED_ON if day <= gone.days), default=0)
    if due > domain.warned_days:
        domain.warned_days = due
        _tell_people(domain, LOST_AFTER.days - gone.days)


def _pause(domain: Domain, now: datetime) -> timedelta:
    if domain.status == DomainStatus.VERIFIED:
        waiting = domain.keys.filter(status=KeyStatus.PENDING).exists()
        return _WHEN_FAILING if domain.failing_since is not None or waiting else _EVERY_DAY
    if domain.status == DomainStatus.LOST:
        return _WHEN_LOST
    age = now - domain.created_at
    return next(pause for limit, pause in _WHEN_PENDING if age < limit)


def _told(domain: Domain) -> dict[str, object]:
    return services.shown(domain) | {"return_path": services.return_path(domain), "failing": domain.failing_since is not None}


def _action(before: dict[str, object], after: dict[str, object]) -> str:
    if before["status"] != after["status"]:
        return "domain.verify" if after["status"] == DomainStatus.VERIFIED else "domain.lose"
    if before["failing"] != after["failing"]:
        return "domain.proof"
    return "domain.keys"


def _tell_people(domain: Domain, days_left: int) -> None:
    """Write to the owners and admins, each in their language; 0 days: sending has stopped."""
    members = Membership.objects.select_related("person").filter(account=domain.account_id, role__in=(Role.OWNER, Role.ADMIN))
    address = current().public_url + reverse("domains:domain", args=[domain.account_id, domain.id])
    for member in members:
        with translation.override(member.person.language or "en"):
            if days_left:
                subject = _("%s: its proof in DNS is gone") % domain.name
            else:
                subject = _("%s: sending has stopped") % domain.name
            values = {"domain": domain.name, "days": days_left, "address": address, "record": records_of(domain)[0]}
            text = render_to_string("domains/mail/failing.txt", values)
        EmailMessage(subject=subject, body=text, to=[member.person.email]).send()
