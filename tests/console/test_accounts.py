"""Accounts, plans, people, members and invitations: what is written, what is refused, what relays are told."""

import re
from datetime import timedelta

import msgspec
import pytest
from django.core import mail
from django.utils import timezone

from postbud.console.accounts import membership, people, services
from postbud.console.accounts.models import Account, Invitation, Membership, Person
from postbud.console.billing.services import create_plan, update_plan
from postbud.console.link.models import Command
from postbud.console.refused import Refused
from postbud.model.account import Status
from postbud.model.link import AccountRecord
from tests.console.making import CONSOLE, PASSWORD, actor_for, make_account, make_member, make_person, told

pytestmark = pytest.mark.usefixtures("database")


def relay_view(account: str) -> AccountRecord:
    body = told("account", account)
    assert body is not None
    return msgspec.json.decode(body, type=AccountRecord)


def test_an_account_is_told_to_relays_with_its_plans_limits() -> None:
    plan = create_plan(CONSOLE, "Small", month_allowance=1000, hourly_cap=50)
    account = services.create_account(CONSOLE, "  Acme  A/S ", plan=plan)
    assert account.name == "Acme A/S"
    assert relay_view(account.id) == AccountRecord(id=account.id, name="Acme A/S", hourly_cap=50, month_allowance=1000)
    services.set_limits(CONSOLE, account.id, hourly_cap=70)
    assert relay_view(account.id).hourly_cap == 70
    update_plan(CONSOLE, plan.id, month_allowance=2000)
    assert relay_view(account.id).month_allowance == 2000


def test_pause_block_and_their_ends_are_told_at_once() -> None:
    account = make_account()
    services.pause_account(CONSOLE, account.id)
    assert relay_view(account.id).status is Status.PAUSED
    services.pause_account(CONSOLE, account.id)
    services.resume_account(CONSOLE, account.id)
    assert relay_view(account.id).status is Status.ACTIVE
    services.block_account(CONSOLE, account.id, "PB-1")
    blocked = relay_view(account.id)
    assert (blocked.status, blocked.block_reference) == (Status.BLOCKED, "PB-1")
    for no in (services.pause_account, services.resume_account):
        with pytest.raises(Refused):
            no(CONSOLE, account.id)
    services.unblock_account(CONSOLE, account.id)
    lifted = relay_view(account.id)
    assert (lifted.status, lifted.block_reference) == (Status.ACTIVE, None)


def test_a_closed_account_sends_nothing_more() -> None:
    account = make_account()
    services.close_account(CONSOLE, account.id)
    assert relay_view(account.id).status is Status.BLOCKED
    assert Command.objects.get().command == "cancel"
    for no in (services.resume_account, services.unblock_account):
        with pytest.raises(Refused):
            no(CONSOLE, account.id)


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "a\0b", "a\u202eb"])
def test_a_name_that_cannot_be_is_refused_at_its_field(name: str) -> None:
    with pytest.raises(Refused) as refused:
        services.create_account(CONSOLE, name)
    assert refused.value.field == "name"
    assert Account.objects.count() == 0


@pytest.mark.parametrize(
    "limits", [{"month_allowance": -1}, {"log_days": 0}, {"log_days": None}, {"hourly_cap": 10**13}, {"x": 1}]
)
def test_a_limit_that_cannot_be_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(Refused):
        create_plan(CONSOLE, "Odd", **limits)


def test_an_address_is_one_persons_whatever_its_case() -> None:
    make_person("Ane@Acme.Example")
    assert Person.objects.get().email == "ane@acme.example"
    with pytest.raises(Refused) as refused:
        make_person("ANE@acme.example")
    assert refused.value.field == "email"


@pytest.mark.parametrize(
    "password", ["short", "postbudpostbud", "aaaaaaaaaaaaaaaa", "password123456", "ane.acme.ane.acme", "x" * 513]
)
def test_a_password_that_is_easily_guessed_is_refused(password: str) -> None:
    with pytest.raises(Refused) as refused:
        people.create_person(CONSOLE, "ane@acme.example", password, name="Ane")
    assert refused.value.field == "password"


@pytest.mark.parametrize("password", ["four quiet otters read", "x9" * 40 + "æøå and more", " leading and trailing "])
def test_a_password_has_no_rules_of_composition(password: str) -> None:
    person = people.create_person(CONSOLE, "ane@acme.example", password)
    assert person.password.startswith("argon2$argon2id$v=19$m=47104,t=1,p=1$")
    assert Person.objects.get().check_password(password)
    assert not Person.objects.get().check_password(password.strip() + "x")


def test_the_last_operator_stays() -> None:
    operator = make_person("op@acme.example", operator=True)
    with pytest.raises(Refused):
        people.set_operator(CONSOLE, operator.id, operator=False)
    people.set_operator(CONSOLE, make_person("b@acme.example").id, operator=True)
    people.set_operator(CONSOLE, operator.id, operator=False)


def token_of(message: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:8000/invitations/([^/\s]+)/", message)
    assert found is not None, message
    return found[1]


def test_an_invitation_goes_by_mail_and_is_taken_once() -> None:
    owner = make_person()
    account = make_account(owner=owner)
    invitation, token = membership.invite(actor_for(owner), account.id, "Bo@Acme.example", "developer")
    (message,) = mail.outbox
    assert message.to == ["bo@acme.example"]
    assert token_of(str(message.body)) == token
    assert token not in str(Invitation.objects.values().get())
    somebody = make_person("other@acme.example")
    with pytest.raises(Refused):
        membership.accept_invitation(actor_for(somebody), token, somebody)
    bo = make_person("bo@acme.example")
    member = membership.accept_invitation(actor_for(bo), token, bo)
    assert (member.account_id, member.role) == (account.id, "developer")
    with pytest.raises(Refused):
        membership.accept_invitation(actor_for(bo), token, bo)
    assert invitation.account_id == account.id


def test_an_invitation_makes_a_person_of_whoever_reads_its_mail() -> None:
    owner = make_person()
    account = make_account(owner=owner)
    _, token = membership.invite(actor_for(owner), account.id, "bo@acme.example", "viewer")
    with pytest.raises(Refused) as refused:
        membership.accept_as_new_person(actor_for(owner), token, "Bo", "short")
    assert refused.value.field == "password"
    assert not Person.objects.filter(email="bo@acme.example").exists()
    bo = membership.accept_as_new_person(actor_for(owner), token, "Bo", PASSWORD)
    assert Membership.objects.get(person=bo).role == "viewer"
    with pytest.raises(Refused):
        membership.accept_as_new_person(actor_for(owner), token, "Bo", PASSWORD)


def test_an_invitation_ends() -> None:
    owner = make_person()
    account = make_account(owner=owner)
    first, withdrawn = membership.invite(actor_for(owner), account.id, "bo@acme.example", "viewer")
    _, late = membership.invite(actor_for(owner), account.id, "bo@acme.example", "viewer")
    third, taken_back = membership.invite(actor_for(owner), account.id, "di@acme.example", "viewer")
    membership.withdraw_invitation(actor_for(owner), account.id, third.id)
    membership.withdraw_invitation(actor_for(owner), account.id, third.id)
    Invitation.objects.exclude(id=first.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    for token in (withdrawn, late, taken_back, "", "x", "x" * 500):
        with pytest.raises(Refused):
            membership.accept_as_new_person(actor_for(owner), token, "", PASSWORD)
    with pytest.raises(Refused):
        membership.withdraw_invitation(actor_for(owner), make_account("Other").id, first.id)


def test_only_owners_touch_owners_and_one_stays() -> None:
    owner = make_person()
    account = make_account(owner=owner)
    admin = make_member(account, "admin", "admin@acme.example")
    viewer = make_member(account, "viewer", "viewer@acme.example")
    by_admin, by_owner = actor_for(admin), actor_for(owner)
    for refused in (
        lambda: membership.change_role(by_admin, account.id, viewer.id, "owner"),
        lambda: membership.change_role(by_admin, account.id, admin.id, "owner"),
        lambda: membership.change_role(by_admin, account.id, owner.id, "viewer"),
        lambda: membership.remove_member(by_admin, account.id, owner.id),
        lambda: membership.invite(by_admin, account.id, "x@acme.example", "owner"),
        lambda: membership.remove_member(by_owner, account.id, owner.id),
        lambda: membership.change_role(by_owner, account.id, owner.id, "admin"),
        lambda: membership.change_role(by_owner, account.id, viewer.id, "emperor"),
        lambda: membership.change_role(by_owner, account.id, "per_nobody", "viewer"),
        lambda: membership.invite(by_owner, account.id, "viewer@acme.example", "viewer"),
        lambda: membership.invite(by_owner, account.id, "not an address", "viewer"),
    ):
        with pytest.raises(Refused):
            refused()
    membership.change_role(by_admin, account.id, viewer.id, "developer")
    membership.change_role(by_owner, account.id, admin.id, "owner")
    membership.remove_member(by_owner, account.id, owner.id)
    assert sorted(Membership.objects.values_list("role", flat=True)) == ["developer", "owner"]
