"""Leaving: everything as a file without secrets, closing by its name, and thirty days later nothing of it anywhere."""

import json
from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone

from postbud.console.accounts import leaving
from postbud.console.accounts.membership import add_member
from postbud.console.accounts.models import Account, AccountStatus, AuditEntry, Person
from postbud.console.accounts.services import close_account, create_account
from postbud.console.configuration import current
from postbud.console.domains.services import verify_domain
from postbud.console.link.models import LinkRecord
from postbud.console.mail.services import keep_view
from tests.console.making import CONSOLE, browser_of, make_member, make_person
from tests.console.test_routes import World


@pytest.fixture
def world(database: str) -> World:
    return World()


def rows_of(account: str) -> dict[str, int]:
    """Count the rows of every table that has an account."""
    found = {}
    for model in apps.get_models():
        names = {field.name for field in model._meta.concrete_fields}
        if "account" in names:
            count = model._default_manager.filter(account=account).count()
            if count:
                found[model._meta.label] = count
    return found


def test_everything_is_in_the_file_but_secrets(world: World) -> None:
    browser = browser_of(world.ane)
    answer = browser.get(f"/a/{world.acme.id}/everything/")
    octets = b"".join(answer.streaming_content)  # type: ignore[attr-defined]  # a streaming answer
    lines = [json.loads(line) for line in octets.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert set(kinds) == {
        "account",
        "identity",
        "person",
        "server",
        "credential",
        "domain",
        "webhook",
        "key",
        "delivery",
        "audit",
    }
    assert b"hmac$" not in octets
    assert b"secret" not in octets
    assert world.other.id.encode() not in octets
    assert next(line for line in lines if line["kind"] == "delivery")["recipient"]
    admin = browser_of(make_member(world.acme, "admin", "admin@acme.example"))
    assert admin.get(f"/a/{world.acme.id}/everything/").status_code == 403


def test_an_account_is_closed_by_its_name(world: World) -> None:
    browser = browser_of(world.ane)
    path = f"/a/{world.acme.id}/close/"
    assert "Type the account" in browser.post(path, {"name": "acme"}, follow=True).content.decode()
    assert Account.objects.get(id=world.acme.id).status == AccountStatus.ACTIVE
    assert "is closed" in browser.post(path, {"name": "Acme"}, follow=True).content.decode()
    account = Account.objects.get(id=world.acme.id)
    assert account.status == AccountStatus.CLOSED
    assert account.closed_at is not None


def test_nothing_of_it_is_left_after_thirty_days(world: World) -> None:
    verify_domain(CONSOLE, world.acme.id, world.own["domain_id"])
    both = make_person("both@acme.example")
    create_account(CONSOLE, "Third", owner=both)
    add_member(CONSOLE, world.acme.id, both.id, "viewer")
    keep_view(CONSOLE, world.acme.id, both.id, "Mine", "state=bounced")
    before, others = rows_of(world.acme.id), rows_of(world.other.id)
    assert len(before) >= 15, before
    now = timezone.now()
    close_account(CONSOLE, world.acme.id)
    assert leaving.erase_closed(now + timedelta(days=29)) == 0
    calls = 0
    while leaving.erase_closed(now + timedelta(days=31)):
        calls += 1
        assert calls < 50
    assert rows_of(world.acme.id) == {}
    assert rows_of(world.other.id) == others
    account = Account.objects.get(id=world.acme.id)
    assert (account.name, account.erased_at is not None) == (leaving.ERASED_NAME, True)
    assert AuditEntry.objects.get(action="account.erase").object_id == world.acme.id
    assert not Person.objects.filter(id=world.ane.id).exists()
    assert Person.objects.filter(id=both.id).exists()
    assert not (current().folder / "evidence" / world.acme.id).exists()
    assert not list((current().folder / "content").glob(f"{world.acme.id}/*/*"))
    told = LinkRecord.objects.filter(gone=False).exclude(kind__in=("command", "secret"))
    assert not [record.key for record in told if world.acme.id in record.key or world.acme.id.encode() in bytes(record.body)]


def test_the_installations_own_account_and_open_ones_stay(world: World) -> None:
    assert leaving.erase_closed(timezone.now() + timedelta(days=4000)) == 0
    assert Account.objects.filter(erased_at=None).count() >= 3
