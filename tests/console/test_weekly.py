"""The weekly summary: only to who asked, on Monday morning where they are, with the log's figures, and ended by its link."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.core.mail import EmailMessage

from postbud.console.accounts.membership import remove_member
from postbud.console.accounts.models import Membership
from postbud.console.accounts.services import close_account
from postbud.console.mail import weekly
from postbud.console.mail.ingest import ingest
from postbud.model.event import EventKind
from tests.console.link_server import Relay
from tests.console.making import CONSOLE, browser_of, make_account, make_member, make_person, make_server
from tests.console.test_routes import World

WEDNESDAY = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)  # seven o'clock in Copenhagen


@pytest.fixture
def world(database: str) -> World:
    world = World()
    world.ane.time_zone, world.ane.language = "Europe/Copenhagen", "en"
    world.ane.save()
    return world


def mails() -> list[EmailMessage]:
    sent: list[EmailMessage] = mail.outbox  # type: ignore[attr-defined]  # there in tests only
    return sent


def tell(account: str, day: datetime, number: int) -> None:
    """Let a relay tell of a delivery and a bounce."""
    relay = Relay(number, account)
    for end in (EventKind.DELIVERED, EventKind.BOUNCED):
        accepted = relay.accepted(at=day)
        ingest(relay.batch(accepted, relay.became(accepted, end, at=day + timedelta(seconds=2))))


def test_it_comes_on_monday_with_the_week_and_only_to_who_asked(world: World) -> None:
    make_member(world.acme, "viewer", "vera@acme.example")
    mails().clear()
    page = f"/a/{world.acme.id}/statistics/"
    browser = browser_of(world.ane)
    assert "Mail me this weekly" in browser.get(page).content.decode()
    assert "next one" in browser.post(f"{page}weekly/", {"wanted": "yes"}, follow=True).content.decode()
    assert "End the weekly mail" in browser.get(page).content.decode()
    weekly.ask(world.acme.id, world.ane.id, WEDNESDAY, wanted=False)
    weekly.ask(world.acme.id, world.ane.id, WEDNESDAY, wanted=True)
    assert Membership.objects.get(weekly_at__isnull=False).weekly_at == MONDAY
    tell(world.acme.id, WEDNESDAY, 71)
    tell(world.acme.id, WEDNESDAY - timedelta(days=7), 72)
    tell(world.acme.id, MONDAY, 73)  # of the next week
    assert weekly.send_due(MONDAY - timedelta(seconds=1)) == 0
    assert weekly.send_due(MONDAY + timedelta(minutes=1)) == 1
    assert weekly.send_due(MONDAY + timedelta(minutes=2)) == 0
    (letter,) = mails()
    assert letter.to == [world.ane.email]
    assert letter.subject == "Acme: the week from Nov. 23, 2026"
    text = letter.body
    assert "Delivered: 1 " in text
    assert "Given up: 1 " in text
    assert "±0 % on the week before" in text or "on the week before" in text
    assert f"/a/{world.acme.id}/statistics/?period=7d" in text
    assert Membership.objects.get(weekly_at__isnull=False).weekly_at == MONDAY + timedelta(days=7)


def test_after_an_outage_it_comes_once(world: World) -> None:
    weekly.ask(world.acme.id, world.ane.id, WEDNESDAY, wanted=True)
    tell(world.acme.id, MONDAY + timedelta(days=9), 71)
    mails().clear()
    assert weekly.send_due(MONDAY + timedelta(days=15)) == 1
    assert weekly.send_due(MONDAY + timedelta(days=15, hours=1)) == 0
    assert len(mails()) == 1


def test_its_link_ends_it_without_signing_in_and_looking_ends_nothing(world: World) -> None:
    weekly.ask(world.acme.id, world.ane.id, WEDNESDAY, wanted=True)
    tell(world.acme.id, WEDNESDAY, 71)
    mails().clear()
    weekly.send_due(MONDAY)
    (letter,) = mails()
    link = re.search(r"/weekly/[^\s/]+/", letter.body)
    assert link is not None
    assert link[0] in letter.extra_headers["List-Unsubscribe"]
    assert letter.extra_headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    nobody = browser_of(None)
    nobody.handler.enforce_csrf_checks = True  # type: ignore[attr-defined]  # a mail program has no cookie
    assert "End the weekly summary?" in nobody.get(link[0]).content.decode()
    assert weekly.wants(world.acme.id, world.ane.id)
    assert nobody.get(link[0][:-3] + "xx/").status_code == 404
    assert "It is ended" in nobody.post(link[0], {"List-Unsubscribe": "One-Click"}).content.decode()
    assert not weekly.wants(world.acme.id, world.ane.id)
    assert weekly.send_due(MONDAY + timedelta(days=8)) == 0


def test_who_is_no_member_gets_none(world: World) -> None:
    operator = make_person("operator@postbud.example")
    weekly.ask(world.acme.id, operator.id, WEDNESDAY, wanted=True)
    assert not weekly.wants(world.acme.id, operator.id)
    third = make_account("Third", owner=operator)
    make_server(third)
    vera = make_member(third, "viewer", "vera@acme.example")
    for person in (vera, operator):
        weekly.ask(third.id, person.id, WEDNESDAY, wanted=True)
    tell(third.id, WEDNESDAY, 71)
    remove_member(CONSOLE, third.id, vera.id)
    close_account(CONSOLE, third.id)
    mails().clear()
    weekly.send_due(MONDAY + timedelta(days=1))
    assert mails() == []


def test_a_week_of_nothing_is_not_written_about(world: World) -> None:
    weekly.ask(world.other.id, world.bo.id, WEDNESDAY + timedelta(days=300), wanted=True)
    mails().clear()
    assert weekly.send_due(WEDNESDAY + timedelta(days=308)) == 1
    assert mails() == []
