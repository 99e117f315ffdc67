"""The message log: what each filter finds, page by page and live, as files, and under names that people keep."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from postbud.console.accounts.models import Account, AuditEntry
from postbud.console.link.models import Command
from postbud.console.mail import queries
from postbud.console.mail.export import as_csv, harmless
from postbud.console.mail.ingest import ingest
from postbud.console.mail.models import DeliveryRow, SavedView
from postbud.console.mail.services import MOST_VIEWS, clean_query
from postbud.model.event import EventKind
from postbud.model.link import NumberedEvent
from tests.console.link_server import Relay
from tests.console.making import browser_of, make_account, make_member, make_person

HOUR = timedelta(hours=1)


class Log:
    """An account with an owner who looks at its log, and a relay that fills it."""

    def __init__(self) -> None:
        self.owner = make_person()
        self.account: Account = make_account(owner=self.owner)
        self.browser: Client = browser_of(self.owner)
        self.relay = Relay(7, self.account.id)
        self.address = f"/a/{self.account.id}/messages/"

    def accepted(self, *recipients: str, ago: timedelta = timedelta(minutes=5), **fields: object) -> NumberedEvent:
        at = timezone.now() - ago
        self.relay._milliseconds = int(at.timestamp() * 1000)
        event = self.relay.accepted(*recipients, at=at, **fields)
        ingest(self.relay.batch(event))
        return event

    def became(self, of: NumberedEvent, kind: EventKind, place: int = 0, **fields: object) -> None:
        assert of.message_at is not None
        ingest(self.relay.batch(self.relay.became(of, kind, of.message_at + timedelta(seconds=1), place, **fields)))

    def shown(self, **asked: object) -> list[str]:
        """Give the recipients of the rows, in the order of the page."""
        page = self.browser.get(self.address, asked)
        assert page.status_code == 200
        return [row.mailbox for row in page.context["rows"]]


@pytest.fixture
def log(database: str) -> Iterator[Log]:
    return Log()


def test_each_filter_finds_what_agrees_and_nothing_else(log: Log) -> None:
    log.accepted("old@b.example", ago=timedelta(days=3), subject="Invoice 1")
    bounced = log.accepted("ann@b.example", subject="Invoice 12", server="srv_1", credential="crd_1", from_domain="one.example")
    said = {"reply": "550 5.1.1 No such user", "enhanced": "5.1.1", "classified": "recipient"}
    log.became(bounced, EventKind.BOUNCED, site="mx.b.example", **said)
    delivered = log.accepted("Bob@C.example", subject="Order 7", server="srv_2", credential="crd_2", from_domain="two.example")
    log.became(delivered, EventKind.DELIVERED, reply="250 2.0.0 Ok: queued as A1", site="c.example")

    assert log.shown() == ["Bob@C.example", "ann@b.example", "old@b.example"]
    for asked, found in {
        ("q", "invoice"): ["ann@b.example", "old@b.example"],
        ("q", "INVOICE 12"): ["ann@b.example"],
        ("q", "queued as a1"): ["Bob@C.example"],
        ("q", "ann@B.example"): ["ann@b.example"],
        ("q", "c.exam"): ["Bob@C.example"],
        ("q", delivered.deliveries[0] + "x"): [],
        ("period", "1h"): ["Bob@C.example", "ann@b.example"],
        ("state", "bounced"): ["ann@b.example"],
        ("state", "waiting"): ["old@b.example"],
        ("domain", "Two.example"): ["Bob@C.example"],
        ("mailbox", "bob@c.example"): ["Bob@C.example"],
        ("mailbox", "@b.exam"): ["ann@b.example", "old@b.example"],
        ("site", "mx.b.example"): ["ann@b.example"],
        ("code", "550"): ["ann@b.example"],
        ("q", "%"): [],
        ("q", "_"): [],
    }.items():
        assert log.shown(**dict([asked])) == found, asked
    assert log.shown(q="invoice", state="bounced", code="550") == ["ann@b.example"]
    assert log.shown(q="invoice", code="250") == []
    assert [row.mailbox for row in queries.find(search(log, server="srv_2")).rows] == ["Bob@C.example"]
    assert [row.mailbox for row in queries.find(search(log, credential="crd_1")).rows] == ["ann@b.example"]


def search(log: Log, **values: Any) -> queries.Search:
    now = timezone.now()
    return queries.Search(account=log.account.id, start=now - timedelta(days=40), end=now + HOUR, **values)


def test_nonsense_in_the_address_bar_is_left_out_and_breaks_nothing(log: Log) -> None:
    log.accepted("ann@b.example")
    for asked in (
        {"code": "seven"}, {"code": "9" * 40}, {"start": "yesterday"}, {"start": "0001-01-01T00:00"},
        {"end": "9999-12-31T23:59"}, {"state": "asleep"}, {"server": "srv_of_somebody"}, {"period": "7 years"},
        {"before": "msg_.dlv_"}, {"before": "msg_x.dlv_'"}, {"after": "'"}, {"q": "'; DROP TABLE mail_delivery; --"},
        {"q": "\ud800".encode("utf-8", "surrogatepass")}, {"q": "a" * 3000}, {"mailbox": "\\"}, {"mailbox": "@"},
        {"q": "msg_zzzz"}, {"q": "dlv_" + "z" * 26},
    ):  # fmt: skip
        for address in (log.address, f"{log.address}newer/", f"{log.address}export/csv/"):
            answer = log.browser.get(address, asked)
            assert answer.status_code == 200, (address, asked)
            b"".join(answer)
    assert DeliveryRow.objects.count() == 1


def test_an_id_leads_to_its_message(log: Log) -> None:
    event = log.accepted("ann@b.example")
    for public_id in (event.message, event.deliveries[0]):
        answer = log.browser.get(log.address, {"q": public_id})
        assert (answer.status_code, answer["Location"]) == (302, f"{log.address}{event.message}/")


def test_pages_are_stable_while_new_rows_come_in(log: Log) -> None:
    many = [f"r{number:03}@b.example" for number in range(120)]
    for recipient in many:
        log.accepted(recipient, ago=timedelta(minutes=200 - int(recipient[1:4])))
    first = log.browser.get(log.address)
    seen = [row.mailbox for row in first.context["rows"]]
    log.accepted("new@b.example", ago=timedelta(0))
    older = first.context["page"].older
    while older is not None:
        page = log.browser.get(log.address, {"before": str(older)})
        seen += [row.mailbox for row in page.context["rows"]]
        older = page.context["page"].older
    assert seen == many[::-1]


def test_the_live_tail_gives_what_is_newer_and_what_changed(log: Log) -> None:
    first = log.accepted("ann@b.example", ago=timedelta(minutes=2))
    position = f"{first.message}.{first.deliveries[0]}"
    nothing = log.browser.get(f"{log.address}newer/", {"after": position})
    assert list(nothing.context["rows"]) == []
    log.accepted("bob@b.example", ago=timedelta(minutes=1))
    log.became(first, EventKind.DELIVERED, reply="250 Ok")
    answer = log.browser.get(f"{log.address}newer/", {"after": position, "waiting": [position, "nonsense"]})
    assert [row.mailbox for row in answer.context["rows"]] == ["bob@b.example"]
    assert [(row.mailbox, row.state) for row in answer.context["changed"]] == [("ann@b.example", "delivered")]
    other = log.browser.get(f"{log.address}newer/", {"after": position, "state": "bounced"})
    assert list(other.context["rows"]) == []


def test_an_empty_log_that_is_watched_is_swapped_when_the_first_row_comes(log: Log) -> None:
    asked = {"HX-Target": "results", "X-Still-Empty": "yes"}
    assert b"hx-trigger" in log.browser.get(log.address).content
    assert log.browser.get(log.address, headers=asked).status_code == 204
    log.accepted("ann@b.example")
    answer = log.browser.get(log.address, headers=asked)
    assert (answer.status_code, b"ann@b.example" in answer.content) == (200, True)


def test_nothing_is_said_of_a_past_in_which_there_was_nothing(log: Log) -> None:
    log.accepted("ann@b.example")
    assert log.browser.get(log.address, {"q": "absent"}).context["page"].looked_back_to is None


def test_a_messages_page_tells_its_story_in_order_and_what_to_mend(log: Log) -> None:
    event = log.accepted("ann@b.example", "bob@c.example", subject="Invoice 12", tag="shop")
    said = {"enhanced": "4.7.1", "classified": "temporary", "transcript": "RCPT TO:<ann@b.example>\n451 4.7.1 Greylisted"}
    log.became(event, EventKind.DEFERRED, reply="451 4.7.1 Greylisted", host="mx1.b.example", **said)
    log.became(event, EventKind.DELIVERED, 1, reply="250 2.0.0 Ok", tls="TLSv1.3")
    page = log.browser.get(f"{log.address}{event.message}/")
    story = page.context["story"]
    assert [[line.kind for line in told.lines] for told in story] == [["accepted", "deferred"], ["accepted", "delivered"]]
    assert story[0].meaning is not None
    assert story[0].meaning.mend
    text = page.content.decode()
    for told in ("Invoice 12", "451 4.7.1 Greylisted", "mx1.b.example", "RCPT TO:&lt;ann@b.example&gt;", "shop", "TLSv1.3"):
        assert told in text
    assert log.browser.get(f"{log.address}msg_{'0' * 26}/").status_code == 404


@pytest.mark.parametrize("what", ["retry", "cancel", "release"])
def test_what_people_do_to_a_message_is_told_to_the_relays_and_audited(log: Log, what: str) -> None:
    event = log.accepted("ann@b.example")
    answer = log.browser.post(f"{log.address}{event.message}/command/", {"command": what})
    assert answer.status_code == 302
    command = Command.objects.get(account=log.account.id)
    assert (command.command, command.selector["message"], command.selector["account"]) == (what, event.message, log.account.id)
    entry = AuditEntry.objects.get(account=log.account.id, action="message.command")
    assert (entry.actor, entry.after["command"]) == (log.owner.id, what)
    assert log.browser.post(f"{log.address}{event.message}/command/", {"command": "burn"}).status_code == 400


def test_a_viewer_looks_and_does_nothing(log: Log) -> None:
    event = log.accepted("ann@b.example")
    viewer = browser_of(make_member(log.account, "viewer", "vera@acme.example"))
    assert viewer.get(f"{log.address}{event.message}/").status_code == 200
    assert viewer.post(f"{log.address}{event.message}/command/", {"command": "cancel"}).status_code == 403
    assert viewer.get(f"{log.address}{event.message}/content/").status_code == 403
    assert not Command.objects.exists()


# -- files --


@pytest.mark.row("I11")
def test_no_cell_of_an_export_is_a_formula(log: Log) -> None:
    evil = ['=HYPERLINK("http://evil.example")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "＝1"]
    for subject in evil:
        event = log.accepted("ann@b.example", subject=subject)
        log.became(event, EventKind.DEFERRED, reply="451 4.0.0 wait", reason="=cmd|' /C calc'!A0")
    answer = log.browser.get(f"{log.address}export/csv/")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(b"".join(answer).decode())))
    assert sorted(row["subject"] for row in rows) == sorted(f"'{subject}" for subject in evil)
    assert {row["reason"] for row in rows} == {"'=cmd|' /C calc'!A0"}


@pytest.mark.row("I11")
@given(st.one_of(st.none(), st.integers(), st.text(max_size=40)))
def test_a_harmless_value_begins_with_no_character_that_begins_a_formula(value: str | int | None) -> None:
    told = harmless(value)
    assert not str(told).startswith(("=", "+", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")) or not isinstance(value, str)
    assert not isinstance(value, str) or str(told).removeprefix("'") in {value, value.removeprefix("'")}


def test_an_export_has_every_row_that_the_search_finds_and_is_audited(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in reversed(range(25)):
        log.accepted(f"r{number}@b.example", subject=f"Invoice {number}", ago=timedelta(days=number))
    log.accepted("x@b.example", subject="Order 1")
    every = queries.every
    monkeypatch.setattr(queries, "every", lambda search: every(search, at_once=4))
    answer = log.browser.get(f"{log.address}export/ndjson/", {"q": "invoice"})
    told = [json.loads(line) for line in b"".join(answer).splitlines()]
    assert [row["recipient"] for row in told] == [f"r{number}@b.example" for number in range(25)]
    assert told[0]["state"] == "queued"
    assert datetime.fromisoformat(told[0]["accepted_at"]).tzinfo == UTC
    table = csv.DictReader(io.StringIO(b"".join(log.browser.get(f"{log.address}export/csv/", {"q": "invoice"})).decode()))
    assert [row["delivery"] for row in table] == [row["delivery"] for row in told]
    entries = AuditEntry.objects.filter(account=log.account.id, action="messages.export").order_by("number")
    assert [(entry.object_id, entry.after) for entry in entries] == [
        ("ndjson", {"query": "q=invoice"}),
        ("csv", {"query": "q=invoice"}),
    ]


def test_an_export_is_written_while_it_is_read(log: Log) -> None:
    log.accepted("ann@b.example")
    row = DeliveryRow.objects.get()

    def endless() -> Iterator[DeliveryRow]:
        while True:
            yield row

    lines = as_csv(endless(), {})
    assert [next(lines) for _ in range(3)][1:] == [next(lines)] * 2


def test_an_export_holds_nothing_of_another_account(log: Log) -> None:
    log.accepted("ann@b.example")
    other = make_account("Other", owner=make_person("olga@other.example"))
    relay = Relay(8, other.id)
    ingest(relay.batch(relay.accepted("secret@b.example", at=timezone.now())))
    assert b"secret" not in b"".join(log.browser.get(f"{log.address}export/ndjson/"))
    assert log.browser.get(f"/a/{other.id}/messages/export/csv/").status_code == 404


# -- kept searches --


def test_a_kept_search_is_there_under_its_name_and_forgotten_by_a_button(log: Log) -> None:
    asked = {"name": " My   bounces ", "query": "state=bounced&period=24h&next=//evil.example&q="}
    answer = log.browser.post(f"{log.address}views/", asked)
    assert answer["Location"] == f"{log.address}?period=24h&state=bounced"
    page = log.browser.get(answer["Location"])
    [view] = page.context["views"]
    assert (view.name, view.query) == ("My bounces", "period=24h&state=bounced")
    assert 'aria-current="page">My bounces</a>' in page.content.decode()
    log.browser.post(f"{log.address}views/", {"name": "My bounces", "query": "state=deferred"})
    assert SavedView.objects.get().query == "state=deferred"
    log.browser.post(f"{log.address}views/{view.id}/drop/")
    assert not SavedView.objects.exists()
    entries = AuditEntry.objects.filter(account=log.account.id, object_kind="view").order_by("number")
    assert [entry.action for entry in entries] == ["view.keep", "view.keep", "view.drop"]


def test_a_kept_search_is_its_persons_alone(log: Log) -> None:
    log.browser.post(f"{log.address}views/", {"name": "Mine", "query": "state=bounced"})
    view = SavedView.objects.get()
    other = browser_of(make_member(log.account, "admin", "adam@acme.example"))
    assert other.get(log.address).context["views"] == []
    other.post(f"{log.address}views/{view.id}/drop/")
    assert SavedView.objects.get() == view


@pytest.mark.parametrize(
    "given",
    [
        {"name": "", "query": "q=x"},
        {"name": "x", "query": ""},
        {"name": "\n", "query": "q=x"},
        {"name": "a\0", "query": "q=x"},
        {"name": "x", "query": "q=%00"},
    ],
)
def test_what_cannot_be_kept_is_said_on_the_page(log: Log, given: dict[str, str]) -> None:
    page = log.browser.post(f"{log.address}views/", given, follow=True)
    assert page.status_code == 200
    assert [str(told.level_tag) for told in page.context["messages"]] == ["error"]
    assert not SavedView.objects.exists()


def test_kept_searches_have_a_limit(log: Log) -> None:
    for number in range(MOST_VIEWS + 1):
        log.browser.post(f"{log.address}views/", {"name": f"View {number}", "query": "q=x"})
    assert SavedView.objects.count() == MOST_VIEWS


@given(st.text(max_size=200))
def test_a_query_that_is_kept_holds_nothing_but_what_the_filter_knows(query: str) -> None:
    cleaned = clean_query(query)
    assert clean_query(cleaned) == cleaned
    assert clean_query("before=msg_1.dlv_1&server=srv_1&q=a+b") == "q=a+b&server=srv_1"
