"""From a domain to its MX hosts by the book, and from a host to addresses that may be dialled.

RFC 5321 s5.1 (order, implicit MX, our own name), RFC 7505 (null MX), RFC 3596. Rows 26 to 30, K6, K7.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from postbud.model.outcome import Bounced, Deferred, Scope
from postbud.net.dns import Absence, Found, Missing, Mx, Resolver, Unavailable
from postbud.net.guard import Guard, Verdict

MAX_HOSTS = 20
MAX_ADDRESSES = 8  # of one host and family
_SITE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Exchangers:
    """The hosts of a domain in the order to try, and the name of the site that they are."""

    site: str
    hosts: tuple[str, ...]


async def find_exchangers(
    resolver: Resolver, domain: str, hostname: str, dice: random.Random
) -> Exchangers | Deferred | Bounced:
    """Find the hosts that take mail for a domain. `hostname` is our own name: we never send to hosts behind ourselves."""
    answer = await resolver.lookup(domain, "MX")
    match answer:
        case Unavailable(why):
            return Deferred(f"MX of {domain}: {why}", "4.4.3", Scope.SITE)
        case Missing(Absence.NXDOMAIN):
            return Bounced(f"domain {domain} does not exist", "5.1.2", Scope.SITE)
        case Missing():
            return await _implicit(resolver, domain, hostname)
        case Found():
            return _explicit(domain, answer.exchangers, hostname, dice)


async def _implicit(resolver: Resolver, domain: str, hostname: str) -> Exchangers | Deferred | Bounced:
    if domain == hostname:
        return _loop(domain)
    for kind in ("A", "AAAA"):
        match await resolver.lookup(domain, kind):
            case Found():
                return Exchangers(domain, (domain,))
            case Unavailable(why):
                return Deferred(f"address of {domain}: {why}", "4.4.3", Scope.SITE)
            case Missing():
                pass
    return Bounced(f"domain {domain} has neither MX nor address", "5.4.4", Scope.SITE)


def _explicit(domain: str, records: Sequence[Mx], hostname: str, dice: random.Random) -> Exchangers | Deferred | Bounced:
    named = [record for record in records if record.host]
    if not named:
        if all(record.preference == 0 for record in records):
            return Bounced(f"domain {domain} accepts no mail (556, null MX)", "5.1.10", Scope.SITE)
        return Deferred(f"the null MX of {domain} is malformed", "4.4.4", Scope.SITE)
    own = min((record.preference for record in named if record.host == hostname), default=None)
    ahead = [record for record in named if own is None or record.preference < own]
    if not ahead:
        return _loop(domain)
    ranked = sorted((record.preference, dice.random(), record.host) for record in ahead)
    hosts = tuple(dict.fromkeys(host for _, _, host in ranked if not _is_number(host)))[:MAX_HOSTS]
    if not hosts:
        return Deferred(f"no MX of {domain} is a host name", "4.4.4", Scope.SITE)
    return Exchangers(site_of(hosts), hosts)


def _loop(domain: str) -> Bounced:
    return Bounced(f"mail for {domain} loops back to us", "5.4.6", Scope.SITE)


def _is_number(host: str) -> bool:
    """Tell whether an MX host is an address in disguise: no top-level domain is a number."""
    return host.rpartition(".")[2].isdigit() or ":" in host


def site_of(hosts: Sequence[str]) -> str:
    """Name the site that a set of MX hosts is: `(alt1|alt2).aspmx.l.google.com`. One name, one set, whatever the order.

    Customers of one provider often differ in the first label only (`mxa-001.gslb…`, `mxa-002.gslb…`), and their mail must
    never be mixed; so the whole set is in the name, the common labels once (the form of KumoMTA's site name).
    """
    if len(hosts) == 1:
        return hosts[0]
    split = [host.split(".") for host in sorted(hosts)]
    shared = 0
    while all(len(labels) > shared + 1 for labels in split) and len({labels[-1 - shared] for labels in split}) == 1:
        shared += 1
    heads = "|".join(".".join(labels[: len(labels) - shared]) for labels in split)
    suffix = ".".join(split[0][len(split[0]) - shared :]) if shared else ""
    if len(heads) > _SITE_CHARACTERS:
        heads = "#" + hashlib.sha256(heads.encode()).hexdigest()[:16]
    return f"({heads}).{suffix}" if suffix else f"({heads})"


async def find_addresses(
    resolver: Resolver, guard: Guard, host: str, family: int | None
) -> tuple[list[str], list[Verdict], bool]:
    """Look up the addresses of a host that may be dialled, IPv4 and IPv6.

    Gives them, the verdicts of those that may not, and whether the resolver failed us for a family.
    """
    allowed: list[str] = []
    refused: list[Verdict] = []
    failed = False
    for version, kind in ((6, "AAAA"), (4, "A")):
        answer = await resolver.lookup(host, kind)
        if isinstance(answer, Unavailable):
            failed = True
        if not isinstance(answer, Found):
            continue
        for address in answer.texts[:MAX_ADDRESSES]:
            verdict = guard.judge(address)
            if verdict is not Verdict.ALLOWED:
                refused.append(verdict)
            elif family in (None, version):
                allowed.append(address)
    return allowed, refused, failed
