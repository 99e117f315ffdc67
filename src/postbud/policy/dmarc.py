"""DMARC: what a policy record says, and which domain's record counts for mail from a domain.

Owns the record's syntax and the tree walk; asks nobody: who has a resolver asks for the names that `targets` gives and hands in
what was found. Invariant: of several records at one name none counts. RFC 9989 (s4.7 tags, s4.10 tree walk and discovery).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

_LABELS_AFTER_A_LEAP = 7
_VERSION = re.compile(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s,!]+")


class DmarcPolicy(Enum):
    """What a receiver is asked to do with mail that fails."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


_MILDER = {DmarcPolicy.REJECT: DmarcPolicy.QUARANTINE}


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """One policy record. `psd` is "y", "n" or "u"; `flaws` are values that cannot be and were passed over."""

    policy: DmarcPolicy = DmarcPolicy.NONE
    subdomains: DmarcPolicy | None = None
    nonexistent: DmarcPolicy | None = None
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: str = "u"
    testing: bool = False
    reports_to: tuple[str, ...] = ()
    removed_tags: tuple[str, ...] = ()  # of RFC 7489, which mean nothing any more
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovered:
    """Which record counts. `policy` is what is asked for in the end, None when no record was found."""

    organizational_domain: str
    found_at: str = ""
    record: DmarcRecord | None = None
    policy: DmarcPolicy | None = None


def parse_record(text: str) -> DmarcRecord | None:
    """Read a TXT record; None when it is no DMARC record. Unknown tags are passed over (RFC 9989 s4.7)."""
    if _VERSION.match(text) is None:
        return None
    said: dict[str, str] = {}
    flaws: list[str] = []
    for part in text.split(";")[1:]:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = name.lower()
        if name and (not equals or name in said):
            flaws.append(part.strip())
        elif name:
            said[name] = value

    def one_of(name: str, values: Mapping[str, str]) -> str | None:
        value = said.get(name)
        if value is None:
            return None
        if value.lower() not in values:
            flaws.append(f"{name}={value}")
            return None
        return values[value.lower()]

    def policy(name: str) -> DmarcPolicy | None:
        found = one_of(name, {each.value: each.value for each in DmarcPolicy})
        return DmarcPolicy(found) if found is not None else None

    return DmarcRecord(
        policy=policy("p") or DmarcPolicy.NONE,
        subdomains=policy("sp"),
        nonexistent=policy("np"),
        strict_dkim=one_of("adkim", {"s": "s", "r": "r"}) == "s",
        strict_spf=one_of("aspf", {"s": "s", "r": "r"}) == "s",
        psd=one_of("psd", {"y": "y", "n": "n", "u": "u"}) or "u",
        testing=one_of("t", {"y": "y", "n": "n"}) == "y",
        reports_to=tuple(_URI.findall(said.get("rua", ""))),
        removed_tags=tuple(name for name in ("pct", "rf", "ri") if name in said),
        flaws=tuple(flaws),
    )


def record_among(texts: Iterable[str]) -> DmarcRecord | None:
    """Give the one policy record among the TXT records of a name; None when there is none, or more than one."""
    found = [record for text in texts if (record := parse_record(text)) is not None]
    return found[0] if len(found) == 1 else None


def targets(domain: str) -> list[str]:
    """Give the domains of a tree walk in its order, eight at most; the record of each is at `_dmarc.` below it."""
    labels = domain.split(".")
    if len(labels) > _LABELS_AFTER_A_LEAP:
        rest = labels[-_LABELS_AFTER_A_LEAP:]
        return [domain] + [".".join(rest[n:]) for n in range(len(rest))]
    return [".".join(labels[n:]) for n in range(len(labels))]


def discover(domain: str, records: Mapping[str, DmarcRecord], *, exists: bool = True) -> Discovered:
    """Find the organizational domain of a domain and the policy for mail from it.

    `records`: by domain, what `record_among` gave for the targets. `exists` False: the domain has no record of any type, so
    that `np` counts (RFC 9989 s4.10.1, s4.10.2).
    """
    walked: list[str] = []
    organizational = suffix = ""
    for target in targets(domain):
        record = records.get(target)
        if record is None:
            continue
        if record.psd == "n":
            walked.append(target)
            organizational = target
            break
        if record.psd == "y":
            if target != domain:
                suffix = target
                organizational = _one_below(domain, target)
            else:
                walked.append(target)
            break
        walked.append(target)
    organizational = organizational or (walked[-1] if walked else domain)
    own = records.get(domain)
    if own is not None:
        return Discovered(organizational, domain, own, _asked(own, own.policy))
    for place in (organizational, suffix):
        record = records.get(place)
        if record is not None:
            wanted = record.subdomains or record.policy
            if not exists:
                wanted = record.nonexistent or wanted
            return Discovered(organizational, place, record, _asked(record, wanted))
    return Discovered(organizational)


def _one_below(domain: str, suffix: str) -> str:
    """Give the domain that is one label below a suffix on the way to a domain."""
    return ".".join(domain.split(".")[-(suffix.count(".") + 2) :])


def _asked(record: DmarcRecord, policy: DmarcPolicy) -> DmarcPolicy:
    return _MILDER.get(policy, DmarcPolicy.NONE) if record.testing else policy
