"""Every write to memberships and invitations: one function, one transaction, its audit entry included.

Invariants: an account that has people has an owner; only owners make, change and remove owners, whatever a page let through;
an invitation is used once, by whoever reads the mail of the address that it was sent to.
"""

import secrets
from datetime import datetime, timedelta

from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from postbud.console.accounts import audit, people
from postbud.console.accounts.invited import find, hash_token
from postbud.console.accounts.models import Account, Invitation, Membership, Person, Role
from postbud.console.configuration import current
from postbud.console.refused import Refused
from postbud.console.transaction import write

INVITATION_LASTS = timedelta(days=7)
MAX_WAITING = 100  # invitations of one account
_TOKEN_OCTETS = 32
_KEEP_INVITATIONS = timedelta(days=90)  # after they ended; the audit log tells of them longer
_AT_ONCE = 1000


def invite(who: audit.Actor, account: str, email: str, role: str, *, language: str = "") -> tuple[Invitation, str]:
    """Offer somebody a role, by mail; give the invitation and its token. An earlier one to the same address ends.

    Raises:
        Refused: The address or role cannot be, they are a member, or `who` may not give the role.
    """
    cleaned, wanted = people.clean_email(email), clean_role(role)
    token = secrets.token_urlsafe(_TOKEN_OCTETS)
    now = timezone.now()
    with write():
        found = _locked(account)
        _only_owners(who, account, wanted)
        if Membership.objects.filter(account=account, person__email=cleaned).exists():
            raise Refused("email", _("They are a member already."))
        waiting = Invitation.objects.filter(account=account, accepted_at=None, withdrawn_at=None)
        waiting.filter(email=cleaned).update(withdrawn_at=now)
        if waiting.filter(expires_at__gt=now).count() >= MAX_WAITING:
            raise Refused("email", _("Too many invitations wait for an answer: withdraw some."))
        invitation = Invitation.objects.create(
            account=found,
            email=cleaned,
            role=wanted,
            token_hash=hash_token(token),
            invited_by=Person.objects.filter(id=who.id).first(),
            expires_at=now + INVITATION_LASTS,
        )
        audit.record(who, account, "invitation.create", invitation.id, after={"email": cleaned, "role": wanted})
        _mail(invitation, token, language)
    return invitation, token


def withdraw_invitation(who: audit.Actor, account: str, invitation: str) -> None:
    """Take an invitation back. Again is harmless.

    Raises:
        Refused: The account has no such invitation.
    """
    with write():
        found = Invitation.objects.select_for_update().filter(account=account, id=invitation).first()
        if found is None:
            raise Refused("", _("There is no such invitation."))
        if found.withdrawn_at is None and found.accepted_at is None:
            found.withdrawn_at = timezone.now()
            found.save(update_fields=["withdrawn_at"])
            audit.record(who, account, "invitation.withdraw", found.id, before={"email": found.email, "role": found.role})


def accept_invitation(who: audit.Actor, token: str, person: Person) -> Membership:
    """Make a signed-in person a member. The address must be theirs, verified.

    Raises:
        Refused: The invitation is used, withdrawn or too old, or for another address.
    """
    with write():
        invitation = _open_invitation(token)
        verified = person.emailaddress_set.filter(email__iexact=invitation.email, verified=True)  # type: ignore[attr-defined]  # allauth's
        if not verified.exists():
            raise Refused("", _("The invitation is for another e-mail address."))
        return _accept(who, invitation, person)


def accept_as_new_person(who: audit.Actor, token: str, name: str, password: str) -> Person:
    """Make a person of whoever has the link, and a member. The link came by mail, so the address is theirs.

    Raises:
        Refused: The invitation cannot be used, there is such a person, or the password is too weak.
    """
    with write():
        invitation = _open_invitation(token)
        person = people.create_person(who, invitation.email, password, name=name, language=translation.get_language() or "")
        _accept(audit.Actor("person", person.id, who.address, who.user_agent), invitation, person)
    return person


def forget_invitations(now: datetime) -> int:
    """Forget invitations that ended long ago; give how many. A thousand at a time: call again."""
    ended = Invitation.objects.filter(expires_at__lte=now - _KEEP_INVITATIONS)
    ids = list(ended.order_by("expires_at").values_list("id", flat=True)[:_AT_ONCE])
    with write():
        Invitation.objects.filter(id__in=ids).delete()
    return len(ids)


def change_role(who: audit.Actor, account: str, person: str, role: str) -> Membership:
    """Give a member another role. Idempotent.

    Raises:
        Refused: No such member, `who` may not, or no owner would be left.
    """
    wanted = clean_role(role)
    with write():
        _locked(account)
        member = _member(account, person)
        _only_owners(who, account, wanted, member.role)
        if member.role == wanted:
            return member
        if member.role == Role.OWNER:
            _another_owner(account, person)
        before, member.role = member.role, wanted
        member.save(update_fields=["role"])
        audit.record(who, account, "member.role", person, before={"role": before}, after={"role": wanted})
    return member


def add_member(who: audit.Actor, account: str, person: str, role: str) -> Membership:
    """Make somebody a member without asking them (by the operator).

    Raises:
        Refused: There is no such account or person, or they are a member.
    """
    wanted = clean_role(role)
    with write():
        found = _locked(account)
        somebody = people.find_person(person)
        if Membership.objects.filter(account=account, person=somebody).exists():
            raise Refused("person", _("They are a member already."))
        member = Membership.objects.create(account=found, person=somebody, role=wanted)
        audit.record(who, account, "member.add", somebody.id, after={"email": somebody.email, "role": wanted})
    return member


def remove_member(who: audit.Actor, account: str, person: str) -> None:
    """End a membership; one's own too.

    Raises:
        Refused: No such member, `who` may not, or no owner would be left.
    """
    with write():
        _locked(account)
        member = _member(account, person)
        if who.id != person:
            _only_owners(who, account, member.role)
        if member.role == Role.OWNER:
            _another_owner(account, person)
        told = {"email": member.person.email, "role": member.role}
        member.delete()
        audit.record(who, account, "member.remove", person, before=told)


def clean_role(role: str) -> str:
    """Give a role.

    Raises:
        Refused: There is none of that name.
    """
    if role not in Role.values:
        raise Refused("role", _("There is no such role."))
    return role


def _open_invitation(token: str) -> Invitation:
    invitation = find(token)
    if invitation is not None:  # look again under the lock: an invitation is used once
        _locked(invitation.account_id)
        invitation = find(token)
    if invitation is None:
        raise Refused("", _("This invitation no longer works: it was used, withdrawn, or is too old."))
    return invitation


def _accept(who: audit.Actor, invitation: Invitation, person: Person) -> Membership:
    account = invitation.account
    member, made = Membership.objects.get_or_create(account=account, person=person, defaults={"role": invitation.role})
    invitation.accepted_at = timezone.now()
    invitation.save(update_fields=["accepted_at"])
    if made:
        told = {"email": person.email, "role": member.role, "invitation": invitation.id}
        audit.record(who, account.id, "member.add", person.id, after=told)
    return member


def _locked(account: str) -> Account:
    found = Account.objects.select_for_update().filter(id=account).first()
    if found is None:
        raise Refused("account", _("There is no such account."))
    return found


def _member(account: str, person: str) -> Membership:
    member = Membership.objects.select_related("person").filter(account=account, person=person).first()
    if member is None:
        raise Refused("", _("There is no such member."))
    return member


def _only_owners(who: audit.Actor, account: str, *roles: str) -> None:
    """Let only owners touch owners. Operators and the command line stand above."""
    if Role.OWNER not in roles or who.kind not in ("person", "api"):
        return
    if not Membership.objects.filter(account=account, person=who.id, role=Role.OWNER).exists():
        raise Refused("role", _("Only an owner can do that."))


def _another_owner(account: str, person: str) -> None:
    if not Membership.objects.filter(account=account, role=Role.OWNER).exclude(person=person).exists():
        raise Refused("role", _("An account has an owner: name another one first."))


def _mail(invitation: Invitation, token: str, language: str) -> None:
    inviter = invitation.invited_by
    with translation.override(language or invitation.account.language or translation.get_language() or "en"):
        values = {
            "account": invitation.account.name,
            "inviter": inviter.get_full_name() if inviter is not None else "Postbud",
            "role": Role(invitation.role).label,
            "address": current().public_url.rstrip("/") + reverse("accounts:invitation", args=[token]),
            "days": INVITATION_LASTS.days,
        }
        subject = _("You are invited to %s on Postbud") % invitation.account.name
        text = render_to_string("accounts/mail/invitation.txt", values)
    EmailMessage(subject=subject, body=text, to=[invitation.email]).send()
