"""Every write to people: made, changed, let in and out. Entries go to the installation's own audit chain.

Does not know how people sign in (allauth does). Invariant: a person who was made by somebody else's hand has a verified
address only when that hand vouches for it.
"""

import zoneinfo
from typing import Any

from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext as _

from postbud.console.accounts import audit
from postbud.console.accounts.models import Person, PersonManager
from postbud.console.refused import Refused
from postbud.console.transaction import write

_MAX_NAME = 120


def create_person(
    who: audit.Actor,
    email: str,
    password: str | None,
    *,
    name: str = "",
    language: str = "",
    time_zone: str = "",
    operator: bool = False,
) -> Person:
    """Make a person whose address is known to be theirs. Without a password they set one by "forgotten password".

    Raises:
        Refused: The address is none or taken, or the password is too weak.
    """
    person = Person(
        email=clean_email(email), name=clean_person_name(name), language=_language(language), time_zone=_zone(time_zone),
        is_operator=operator,
    )  # fmt: skip
    if password is None:
        person.set_unusable_password()
    else:
        check_password(password, person)
        person.set_password(password)
    with write():
        if Person.objects.filter(email=person.email).exists() or EmailAddress.objects.filter(email=person.email).exists():
            raise Refused("email", _("There is somebody with this address."))
        person.save(force_insert=True)
        EmailAddress.objects.create(user=person, email=person.email, primary=True, verified=True)
        audit.record(who, audit.INSTALLATION, "person.create", person.id, after=_shown(person))
    return person


def update_profile(
    who: audit.Actor, person: str, *, name: str | None = None, language: str | None = None, time_zone: str | None = None
) -> Person:
    """Change what a person may change of themselves.

    Raises:
        Refused: A value cannot be, or there is no such person.
    """
    wanted: dict[str, Any] = {}
    if name is not None:
        wanted["name"] = clean_person_name(name)
    if language is not None:
        wanted["language"] = _language(language)
    if time_zone is not None:
        wanted["time_zone"] = _zone(time_zone)
    return _change(who, person, "person.update", wanted)


def set_operator(who: audit.Actor, person: str, *, operator: bool) -> Person:
    """Make somebody an operator, or end it.

    Raises:
        Refused: There is no such person, or no operator would be left.
    """
    with write():
        others = Person.objects.filter(is_operator=True, is_active=True).exclude(id=person)
        if not operator and not others.exists():
            raise Refused("", _("No operator would be left."))
        return _change(who, person, "person.operator", {"is_operator": operator})


def set_active(who: audit.Actor, person: str, *, active: bool) -> Person:
    """Let somebody in no more, and end their sessions; or let them in again.

    Raises:
        Refused: There is no such person.
    """
    with write():
        changed = _change(who, person, "person.activate" if active else "person.deactivate", {"is_active": active})
        if not active:
            _end_sessions(changed)
    return changed


def set_password(who: audit.Actor, person: str, password: str) -> Person:
    """Give somebody a password (by the operator's command line), and end their sessions.

    Raises:
        Refused: There is no such person, or the password is too weak.
    """
    found = find_person(person)
    check_password(password, found)
    found.set_password(password)
    with write():
        found.save(update_fields=["password"])
        _end_sessions(found)
        audit.record(who, audit.INSTALLATION, "person.password", found.id)
    return found


def find_person(person: str) -> Person:
    """Give a person by id or e-mail address.

    Raises:
        Refused: There is none.
    """
    found = (
        Person.objects.filter(id=person).first() or Person.objects.filter(email=PersonManager.normalize_email(person)).first()
    )
    if found is None:
        raise Refused("person", _("There is no such person."))
    return found


def clean_email(email: str) -> str:
    """Give an address as it is kept.

    Raises:
        Refused: It is none.
    """
    cleaned = PersonManager.normalize_email(email)
    try:
        validate_email(cleaned)
    except ValidationError as error:
        raise Refused("email", _("This is no e-mail address.")) from error
    if len(cleaned) > 254 or not cleaned.isascii():
        raise Refused("email", _("This is no e-mail address."))
    return cleaned


def clean_person_name(name: str) -> str:
    """Give a person's name as it is kept; empty is fine.

    Raises:
        Refused: It is too long or holds what cannot be printed.
    """
    cleaned = " ".join(name.split())
    if len(cleaned) > _MAX_NAME or not cleaned.isprintable():
        raise Refused("name", _("A name has at most %d characters.") % _MAX_NAME)
    return cleaned


def check_password(password: str, person: Person) -> None:
    """Refuse what is too easy.

    Raises:
        Refused: With everything that is wrong with it.
    """
    try:
        validate_password(password, person)
    except ValidationError as error:
        raise Refused("password", " ".join(error.messages)) from error


def _change(who: audit.Actor, person: str, action: str, changes: dict[str, Any]) -> Person:
    with write():
        found = Person.objects.select_for_update().filter(id=person).first()
        if found is None:
            raise Refused("person", _("There is no such person."))
        before = _shown(found)
        for name, value in changes.items():
            setattr(found, name, value)
        told = audit.changed(before, _shown(found))
        if told[1]:
            found.save()
            audit.record(who, audit.INSTALLATION, action, found.id, before=told[0], after=told[1])
    return found


def _end_sessions(person: Person) -> None:
    for session in UserSession.objects.filter(user=person):
        session.end()


def _language(language: str) -> str:
    if language and language not in dict(settings.LANGUAGES):
        raise Refused("language", _("The pages do not speak this language."))
    return language


def _zone(time_zone: str) -> str:
    if time_zone and time_zone not in zoneinfo.available_timezones():
        raise Refused("time_zone", _("There is no such time zone."))
    return time_zone


def _shown(person: Person) -> dict[str, Any]:
    return {
        "email": person.email,
        "name": person.name,
        "language": person.language,
        "time_zone": person.time_zone,
        "is_operator": person.is_operator,
        "is_active": person.is_active,
    }
