"""Looks at a domain's records in DNS, and says of each whether it is there, wrong, missing, or cannot be told now.

Asks through `net`; writes nothing. Invariant: a name server's trouble is "unknown", never "missing": no domain is lost for it.
RFC 6376 s3.6.1 (keys), 7208 s4.5 (which TXT is an SPF record), 7505 (null MX), 9989 (DMARC).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import cache

import msgspec
from publicsuffixlist import PublicSuffixList

from postbud.console.domains.records import PROOF_PREFIX, Purpose, Wanted
from postbud.net.dns import Found, Lookup, Missing, Unavailable
from postbud.policy.dmarc import DmarcRecord, discover, record_among, targets

Ask = Callable[[str, str], Awaitable[Lookup]]

_SHOWN = 3  # records of others that are shown of one name
_SHOWN_LETTERS = 300
_SPACE = re.compile(r"[\s;]+")
PRESENT, WRONG, MISSING, UNKNOWN = "present", "wrong", "missing", "unknown"


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of one wanted record. `others`: what stands there instead."""

    purpose: str
    name: str
    state: str
    selector: str = ""
    others: tuple[str, ...] = ()
    why: str = ""


class Dmarc(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which DMARC record counts, and what the older way by the list of public suffixes would have said."""

    found_at: str = ""
    policy: str = ""
    organizational_domain: str = ""
    by_list: str = ""  # the organizational domain by the Public Suffix List
    reports_to: tuple[str, ...] = ()
    testing: bool = False
    strict: tuple[str, ...] = ()  # of `dkim` and `spf`: which must be of the very same domain
    flaws: tuple[str, ...] = ()
    removed_tags: tuple[str, ...] = ()
    unknown: bool = False

    @property
    def disagree(self) -> bool:
        """Whether receivers that follow RFC 7489 look elsewhere than those that follow RFC 9989."""
        return bool(self.by_list) and self.by_list != self.organizational_domain


class Sight(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one look at a domain gave."""

    at: datetime
    records: tuple[Seen, ...]
    dmarc: Dmarc
    spf: tuple[str, ...] = ()  # the domain's own SPF records
    takes_mail: str = PRESENT  # MX or an address: `missing`, `null` (RFC 7505), `unknown`
    zone: str = ""
    hosts: tuple[str, ...] = ()

    def of(self, purpose: Purpose) -> list[Seen]:
        """Give what was seen for a purpose."""
        return [seen for seen in self.records if seen.purpose == purpose.value]

    @property
    def proven(self) -> bool | None:
        """Whether the proof and a key are there; None when that cannot be told."""
        needed = [[seen.state for seen in self.of(purpose)] for purpose in (Purpose.PROOF, Purpose.DKIM)]
        if all(PRESENT in states for states in needed):
            return True
        lacking = [states for states in needed if PRESENT not in states]
        return None if any(UNKNOWN in states for states in lacking) else False


async def look(domain: str, wanted: Sequence[Wanted], ask: Ask, now: datetime) -> Sight:
    """Look at everything that counts for a domain's mail."""
    seen, dmarc, spf, takes = await asyncio.gather(
        asyncio.gather(*(_look_at(record, ask) for record in wanted if record.purpose is not Purpose.DMARC)),
        look_at_dmarc(domain, ask),
        _spf(domain, ask),
        _takes_mail(domain, ask),
    )
    return Sight(at=now, records=tuple(seen), dmarc=dmarc, spf=spf, takes_mail=takes)


async def look_at_dmarc(domain: str, ask: Ask) -> Dmarc:
    """Walk the tree for a domain's DMARC record."""
    names = targets(domain)
    answers = await asyncio.gather(*(ask(f"_dmarc.{name}", "TXT") for name in names))
    records: dict[str, DmarcRecord] = {}
    for name, answer in zip(names, answers, strict=True):
        found = record_among(answer.texts) if isinstance(answer, Found) else None
        if found is not None:
            records[name] = found
    discovered = discover(domain, records)
    record = discovered.record
    by_list = _suffixes().privatesuffix(domain) or ""
    return Dmarc(
        found_at=discovered.found_at,
        policy=discovered.policy.value if discovered.policy is not None else "",
        organizational_domain=discovered.organizational_domain if records else "",
        by_list=by_list if records else "",
        reports_to=record.reports_to if record is not None else (),
        testing=record.testing if record is not None else False,
        strict=_strict(record) if record is not None else (),
        flaws=tuple(_shown(flaw) for flaw in record.flaws[:_SHOWN]) if record is not None else (),
        removed_tags=record.removed_tags if record is not None else (),
        unknown=record is None and any(isinstance(answer, Unavailable) for answer in answers),
    )


def _strict(record: DmarcRecord) -> tuple[str, ...]:
    return tuple(name for name, strict in (("DKIM", record.strict_dkim), ("SPF", record.strict_spf)) if strict)


async def _look_at(wanted: Wanted, ask: Ask) -> Seen:
    answer = await ask(wanted.name, wanted.type)
    state, why = UNKNOWN, ""
    others: tuple[str, ...] = ()
    match answer:
        case Found():
            texts = answer.texts
            if any(_agrees(wanted, text) for text in texts):
                state = PRESENT
            else:
                foreign = wanted.purpose is Purpose.PROOF and all(text.startswith(PROOF_PREFIX) for text in texts)
                state, others = MISSING if foreign else WRONG, () if foreign else _some(texts)
        case Missing():
            state = MISSING
        case Unavailable():
            why = answer.why
    return Seen(wanted.purpose.value, wanted.name, state, wanted.selector, others, why)


def _agrees(wanted: Wanted, text: str) -> bool:
    match wanted.purpose:
        case Purpose.DKIM:
            return _tags(text) == _tags(wanted.value)
        case Purpose.RETURN_PATH:
            return text == wanted.value
        case _:
            return text.strip() == wanted.value


def _tags(text: str) -> dict[str, str]:
    """Give the tags of a key that decide; white space inside means nothing, `v` and `k` have defaults (RFC 6376 s3.6.1)."""
    tags = {"v": "DKIM1", "k": "rsa"}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags[name.strip().lower()] = _SPACE.sub("", value)
    return {name: tags.get(name, "") for name in ("v", "k", "p")}


async def _spf(domain: str, ask: Ask) -> tuple[str, ...]:
    answer = await ask(domain, "TXT")
    found = answer.texts if isinstance(answer, Found) else ()
    return _some(text for text in found if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 "))


async def _takes_mail(domain: str, ask: Ask) -> str:
    exchangers, *addresses = await asyncio.gather(ask(domain, "MX"), ask(domain, "A"), ask(domain, "AAAA"))
    if isinstance(exchangers, Found):
        return "null" if all(not one.host for one in exchangers.exchangers) else PRESENT
    if any(isinstance(answer, Found) for answer in addresses):
        return PRESENT
    return UNKNOWN if any(isinstance(answer, Unavailable) for answer in (exchangers, *addresses)) else MISSING


def _some(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(_shown(text) for text in list(texts)[:_SHOWN])


def _shown(text: str) -> str:
    """Give a stranger's text as it may be kept and shown."""
    kept = "".join(letter if letter.isprintable() else "�" for letter in text[:_SHOWN_LETTERS])
    return kept + ("…" if len(text) > _SHOWN_LETTERS else "")


@cache
def _suffixes() -> PublicSuffixList:
    """Give the list that the library ships; reading it takes a tenth of a second, so it is read once."""
    return PublicSuffixList()
