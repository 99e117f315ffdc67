"""Who an account is to its recipients: written down by its people, looked at by an operator, and anew when it changes.

Every write, one transaction each, with its audit entry. Knows register numbers by their check digits (python-stdnum).
Invariant: what is verified is what an operator saw: any change of it makes it submitted again. Evidence is kept sealed.
"""

import os
import re
import secrets
from pathlib import Path
from typing import Any

from babel import Locale
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from stdnum.util import get_cc_module

from postbud.console.accounts import audit
from postbud.console.accounts.models import Account, IdentityStatus, SenderIdentity
from postbud.console.configuration import current
from postbud.console.installation import seal_value, unseal_value
from postbud.console.refused import Refused
from postbud.console.transaction import write

MOST_EVIDENCE_OCTETS = 5 * 1024 * 1024
_MOST_BRANDS = 20
_TEXTS = {"legal_name": 200, "street": 200, "postcode": 20, "city": 120, "register_number": 40, "phone": 40, "website": 200}
_NEEDED = ("legal_name", "street", "postcode", "city", "country", "mailbox")
_REGISTERS = ("businessid", "cvr", "orgnr", "siren", "siret", "regon", "krs", "ico", "vat", "uid", "ein", "kennitala", "tin")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{4,38}")
_WEBSITE = re.compile(r"https?://[a-z0-9.-]+\.[a-z]{2,}(?:[/?][\x21-\x7e]*)?", re.IGNORECASE)
_EVIDENCE = {b"%PDF-": "application/pdf", b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_FIELDS = (*_TEXTS, "country", "mailbox", "brands")


def countries(language: str = "") -> list[tuple[str, str]]:
    """List countries by their names in a language: ISO 3166 code, name."""
    names = Locale.parse(language or translation.get_language() or "en").territories
    known = [
        (code, str(name)) for code, name in names.items() if len(code) == 2 and code.isalpha() and code not in _NO_COUNTRIES
    ]
    return sorted(known, key=lambda one: one[1])


_NO_COUNTRIES = frozenset({"EU", "EZ", "UN", "QO", "XA", "XB", "ZZ"})


def identity_of(account: str) -> SenderIdentity | None:
    """Give an account's identity, None when nothing was written down yet."""
    return SenderIdentity.objects.filter(account=account).first()


def submit_identity(who: audit.Actor, account: str, **values: Any) -> SenderIdentity:
    """Write down who an account is, and have an operator look at it. The same again changes nothing.

    Raises:
        Refused: A value is missing or cannot be.
    """
    cleaned = _cleaned(values)
    with write():
        found = Account.objects.select_for_update().filter(id=account).first()
        if found is None:
            raise Refused("account", _("There is no such account."))
        identity = SenderIdentity.objects.filter(account=account).first() or SenderIdentity(account=found)
        before = _shown(identity)
        for name, value in cleaned.items():
            setattr(identity, name, value)
        told = audit.changed(before, _shown(identity))
        if not told[1] and identity.status in (IdentityStatus.SUBMITTED, IdentityStatus.VERIFIED):
            return identity
        identity.status, identity.remark, identity.submitted_at = IdentityStatus.SUBMITTED, "", timezone.now()
        identity.save()
        audit.record(who, account, "identity.submit", account, before=told[0], after=told[1])
    return identity


def add_evidence(who: audit.Actor, account: str, name: str, octets: bytes) -> None:
    """Keep a file that shows who the account is; it takes the place of an earlier one.

    Raises:
        Refused: There is no identity yet, the file is too large, or of no kind that is taken.
    """
    if len(octets) > MOST_EVIDENCE_OCTETS:
        raise Refused("evidence", _("A file has at most %d MB.") % (MOST_EVIDENCE_OCTETS // 1024 // 1024))
    if not any(octets.startswith(begin) for begin in _EVIDENCE):
        raise Refused("evidence", _("A PDF, PNG or JPEG, please."))
    with write():
        identity = SenderIdentity.objects.select_for_update().filter(account=account).first()
        if identity is None:
            raise Refused("evidence", _("Say first who you are."))
        _keep(evidence_path(account), seal_value(f"evidence/{account}", octets))
        identity.evidence_name = "".join(letter for letter in Path(name).name if letter.isprintable())[:200] or "evidence"
        identity.status, identity.submitted_at = IdentityStatus.SUBMITTED, timezone.now()
        identity.save()
        audit.record(who, account, "identity.evidence", account, after={"octets": len(octets)})


def evidence_of(account: str) -> tuple[str, str, bytes] | None:
    """Give the file as (name, media type, octets), None when there is none."""
    identity = identity_of(account)
    if identity is None or not identity.evidence_name:
        return None
    try:
        octets = unseal_value(f"evidence/{account}", evidence_path(account).read_bytes())
    except FileNotFoundError:
        return None
    kind = next((kind for begin, kind in _EVIDENCE.items() if octets.startswith(begin)), "application/octet-stream")
    return identity.evidence_name, kind, octets


def judge_identity(who: audit.Actor, account: str, *, accepted: bool, remark: str = "") -> SenderIdentity:
    """Say as an operator that an identity is true, or why it cannot be accepted.

    Raises:
        Refused: There is none to judge, or a no without words.
    """
    words = " ".join(remark.split())[:500]
    if not accepted and not words:
        raise Refused("remark", _("Say what is to be mended."))
    with write():
        identity = SenderIdentity.objects.select_for_update().filter(account=account).first()
        if identity is None or identity.status == IdentityStatus.DRAFT:
            raise Refused("", _("There is nothing to judge."))
        before = str(identity.status)
        identity.status = IdentityStatus.VERIFIED if accepted else IdentityStatus.REFUSED
        identity.remark, identity.judged_at = "" if accepted else words, timezone.now()
        identity.save()
        action = "identity.verify" if accepted else "identity.refuse"
        after = {"status": str(identity.status), **({} if accepted else {"remark": words})}
        audit.record(who, account, action, account, before={"status": before}, after=after)
    return identity


def number_is_valid(country: str, number: str) -> bool | None:
    """Tell by its check digits whether a register number can be; None where no register of the country is known."""
    modules = [module for name in _REGISTERS if (module := get_cc_module(country.lower(), name)) is not None]
    if not modules:
        return None
    return any(module.is_valid(number) for module in modules)


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for name, most in _TEXTS.items():
        text = " ".join(str(values.get(name) or "").split())
        if len(text) > most or not text.isprintable():
            raise Refused(name, _("At most %d printable characters.") % most)
        cleaned[name] = text
    cleaned["country"] = str(values.get("country") or "").upper()
    cleaned["mailbox"] = str(values.get("mailbox") or "").strip()
    for name in _NEEDED:
        if not cleaned[name]:
            raise Refused(name, _("This belongs to a sender's identity."))
    if cleaned["country"] not in dict(countries("en")):
        raise Refused("country", _("There is no such country."))
    try:
        validate_email(cleaned["mailbox"])
    except ValidationError as error:
        raise Refused("mailbox", _("This is no mailbox.")) from error
    if cleaned["phone"] and not _PHONE.fullmatch(cleaned["phone"]):
        raise Refused("phone", _("A phone number has digits, and + in front of a country's."))
    if cleaned["website"] and not _WEBSITE.fullmatch(cleaned["website"]):
        raise Refused("website", _("A website begins with https://."))
    if cleaned["register_number"] and number_is_valid(cleaned["country"], cleaned["register_number"]) is False:
        raise Refused("register_number", _("This is no number of a register of that country: its check digits do not fit."))
    cleaned["brands"] = _brands(values.get("brands") or [])
    return cleaned


def _brands(given: list[str]) -> list[str]:
    brands = list(dict.fromkeys(name for one in given if (name := " ".join(str(one).split()))))
    if len(brands) > _MOST_BRANDS or any(len(name) > 80 or not name.isprintable() for name in brands):
        raise Refused("brands", _("At most %d brands, a line each.") % _MOST_BRANDS)
    return brands


def _shown(identity: SenderIdentity) -> dict[str, Any]:
    return {name: getattr(identity, name) for name in _FIELDS}


def evidence_path(account: str) -> Path:
    """Tell where an account's sealed evidence is."""
    return current().folder / "evidence" / account


def _keep(path: Path, octets: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
