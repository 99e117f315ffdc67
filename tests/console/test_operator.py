"""The operator's pages: relays as they tell of themselves, the queue steered, accounts, domains, audit, announcements."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from postbud.console.accounts.models import Account, AccountStatus, AuditEntry, Person
from postbud.console.domains.models import Domain, DomainStatus
from postbud.console.domains.services import add_domain
from postbud.console.founding import ensure_installation
from postbud.console.link import services as link
from postbud.console.link.models import Command, Node
from postbud.console.operator import gauges
from postbud.model.link import CommandRecord, NodeState, WorkerState
from tests.console.making import CONSOLE, browser_of, make_account, make_person, make_server, told

NOW = timezone.now()
LANES = [
    {
        "source": "203.0.113.5", "site": "mx.slow.example", "ready": 120, "connections": 2, "connections_allowed": 4,
        "messages_per_second": 0.5, "paused_until": None, "dead_until": None, "why": "421 4.7.0 <b>slow</b> down",
        "stopped_accounts": {"acct_x": {"until": NOW.timestamp() + 600, "why": "550 5.7.1 blocked"}},
    },
    {
        "source": "", "site": "mx.dead.example", "ready": 7, "connections": 0, "connections_allowed": 1,
        "messages_per_second": None, "paused_until": None, "dead_until": NOW.timestamp() + 300, "why": "connection refused",
    },
    {
        "source": "", "site": "mx.fine.example", "ready": 900, "connections": 9, "connections_allowed": 20,
        "messages_per_second": None, "paused_until": None, "dead_until": None, "why": "",
    },
]  # fmt: skip


def state(node: str = "relay.example", **numbers: float) -> NodeState:
    whole = {"postbud_queued_deliveries": 1027.0, "postbud_held_deliveries": 3.0, "postbud_spool_has_space": 1.0} | numbers
    lanes: list[dict[str, object]] = [dict(lane) for lane in LANES]
    return NodeState(
        node, NOW, "0.9", 42, [WorkerState(0, 7, whole, lanes), WorkerState(1, 8, whole)], [{"address": "127.0.0.1:25"}]
    )


@pytest.fixture
def otto(database: str) -> Person:
    cache.clear()
    return make_person("otto@post.example", operator=True)


@pytest.fixture
def browser(otto: Person, configure: Any) -> Client:
    configure(demo=True)  # where operators need no second factor
    return browser_of(otto)


@pytest.fixture
def acme(database: str) -> Account:
    return make_account(owner=make_person())


def test_a_relay_is_shown_as_it_last_told(browser: Client) -> None:
    link.note_state(state(), None, timezone.now())
    node = Node.objects.get()
    for path in ("/operator/", "/operator/relays/", f"/operator/relays/{node.id}/", "/operator/queue/"):
        text = browser.get(path).content.decode()
        assert "relay.example" in text
        assert "<b>slow" not in text
    text = browser.get("/operator/queue/").content.decode()
    assert text.index("mx.fine.example") < text.index("mx.slow.example") < text.index("mx.dead.example")
    for words in ("Out of reach", "Slowed down", "connection refused", "acct_x: 550 5.7.1 blocked"):
        assert words in text
    assert "mx.fine.example" not in browser.get("/operator/queue/", {"q": "DEAD"}).content.decode()


def test_what_the_doctor_found_is_shown_with_its_fix_and_sources_too(browser: Client) -> None:
    health = [
        {"name": "spf", "state": "ok", "said": "fine"},
        {"name": "ptr", "state": "fail", "said": "203.0.113.5 has <no> name", "fix": "have its provider set PTR"},
    ]
    sources: list[dict[str, object]] = [{"id": "out", "address": "203.0.113.5", "helo": "mx.example", "pool": "fast"}]
    link.note_state(msgspec.structs.replace(state(), health=health, health_at=NOW, sources=sources), None, timezone.now())
    text = browser.get("/operator/health/").content.decode()
    assert text.index("ptr") < text.index("spf")
    assert "203.0.113.5 has &lt;no&gt; name" in text
    assert "have its provider set PTR" in text
    assert "mx.example" in browser.get(f"/operator/relays/{Node.objects.get().id}/").content.decode()


def test_a_silent_relay_and_its_problems_are_said(browser: Client) -> None:
    link.note_state(state(postbud_spool_has_space=0.0, postbud_loop_lag_seconds=3.0), None, timezone.now())
    node = Node.objects.get()
    assert "The disk has no room" in browser.get(f"/operator/relays/{node.id}/").content.decode()
    assert gauges.node_view(node, timezone.now()).problems == ["no_space", "lag"]
    Node.objects.update(last_seen_at=timezone.now() - timedelta(minutes=5))
    text = browser.get(f"/operator/relays/{node.id}/").content.decode()
    assert "Silent" in text
    assert "The disk has no room" not in text  # of what is silent nobody knows


@pytest.mark.parametrize("told_state", [{"x": 1}, {"node": "n", "at": "never"}, {"node": "n", "workers": "many"}])
def test_a_state_of_another_version_breaks_no_page(browser: Client, told_state: dict[str, Any]) -> None:
    link.note_state(state(), None, timezone.now())
    Node.objects.update(state=told_state)
    for path in ("/operator/", "/operator/relays/", "/operator/queue/", f"/operator/relays/{Node.objects.get().id}/"):
        assert browser.get(path).status_code == 200


def test_a_machine_joins_by_a_token_that_is_shown_once_and_is_let_in_no_more(browser: Client) -> None:
    text = browser.post("/operator/relays/", {"name": "relay2.example"}).content.decode()
    token = re.search(r"pbn_[\w-]+", text)
    assert token
    node = link.node_of_token(token[0])
    assert node is not None
    assert token[0] not in browser.get("/operator/relays/").content.decode()
    assert "There is a node of this name" in browser.post("/operator/relays/", {"name": "relay2.example"}).content.decode()
    assert browser.post(f"/operator/relays/{node.id}/revoke/").status_code == 302
    assert link.node_of_token(token[0]) is None
    assert list(AuditEntry.objects.filter(account="").order_by("number").values_list("action", flat=True))[-2:] == [
        "node.add",
        "node.revoke",
    ]


def test_queued_mail_is_steered_by_whatever_is_named(browser: Client, acme: Account) -> None:
    server = make_server(acme)
    said = {"kind": "hold", "account": acme.id, "server": server.id, "domain": " Dest.Example "}
    assert browser.post("/operator/queue/", said).status_code == 302
    command = Command.objects.get()
    body = told("command", command.id)
    assert body is not None
    record = msgspec.json.decode(body, type=CommandRecord)
    assert (record.command.value, record.selector.account, record.selector.domain) == ("hold", acme.id, "dest.example")
    text = browser.get("/operator/queue/").content.decode()
    assert "no answer yet" in text
    assert "Name what you mean" in browser.post("/operator/queue/", {"kind": "cancel"}).content.decode()
    assert browser.post("/operator/queue/", {"kind": "resend", "account": acme.id}).status_code == 200
    assert Command.objects.count() == 1
    assert browser.post("/operator/queue/", {"kind": "retry", "domain": "full.example"}).status_code == 302
    assert AuditEntry.objects.filter(account="", action="queue.command").count() == 1
    assert AuditEntry.objects.filter(account=acme.id, action="queue.command").count() == 1


def test_an_account_is_limited_paused_blocked_and_closed(browser: Client, acme: Account) -> None:
    path = f"/operator/accounts/{acme.id}/"
    assert "ane@acme.example" in browser.get(path).content.decode()
    plan = acme.plan_id
    assert browser.post(f"{path}limits/", {"plan": plan, "hourly_cap": "500"}).status_code == 302
    assert browser.post(f"{path}limits/", {"plan": plan, "hourly_cap": "0"}).status_code == 200
    assert browser.post(f"{path}limits/", {"plan": "pln_nothing"}).status_code == 200

    def status(wanted: str, **also: str) -> str:
        browser.post(f"{path}status/", {"status": wanted, **also})
        acme.refresh_from_db()
        return str(acme.status)

    assert status("pause") == AccountStatus.PAUSED
    assert status("resume") == AccountStatus.ACTIVE
    assert status("block", reference="") == AccountStatus.ACTIVE
    assert status("block", reference="CASE-7") == AccountStatus.BLOCKED
    assert "CASE-7" in browser.get(path).content.decode()
    assert status("nonsense") == AccountStatus.BLOCKED
    assert status("unblock") == AccountStatus.ACTIVE
    assert status("close") == AccountStatus.CLOSED
    assert acme.hourly_cap == 500
    ensure_installation()
    assert browser.get("/operator/accounts/acct_system/").status_code == 200
    browser.post("/operator/accounts/acct_system/status/", {"status": "pause"})
    assert not Account.objects.filter(id="acct_system").exclude(status=AccountStatus.ACTIVE).exists()
    assert browser.get("/operator/accounts/acct_nobody/").status_code == 404


def test_a_domain_gets_an_operators_word_and_loses_it(browser: Client, acme: Account) -> None:
    domain = add_domain(CONSOLE, acme.id, "acme.example")
    assert "acme.example" in browser.get("/operator/domains/", {"state": "pending"}).content.decode()
    browser.post(f"/operator/domains/{domain.id}/verify/")
    domain.refresh_from_db()
    assert (domain.status, domain.by_word) == (DomainStatus.VERIFIED, True)
    assert AuditEntry.objects.get(account=acme.id, action="domain.verify").actor_kind == "operator"
    assert "acme.example" not in browser.get("/operator/domains/", {"state": "failing"}).content.decode()
    browser.post(f"/operator/domains/{domain.id}/lose/")
    assert Domain.objects.get().status == DomainStatus.LOST
    assert browser.post(f"/operator/domains/{domain.id}/nonsense/").status_code == 404
    assert browser.post("/operator/domains/dom_nothing/verify/").status_code == 404


def test_everybodys_audit_log_is_searched(browser: Client, acme: Account) -> None:
    make_server(acme, "Office")
    make_server(make_account("Other"), "Elsewhere")
    text = browser.get("/operator/audit/").content.decode()
    assert "Office" in text
    assert "Elsewhere" in text
    for query, there, absent in (
        ({"account": "acm"}, "Office", "Elsewhere"),
        ({"account": acme.id}, "Office", "Elsewhere"),
        ({"action": "server."}, "Office", "account.create"),
        ({"object": "srv_nothing"}, "No entry matches", "Office"),
        ({"actor": "nobody@x.example"}, "No entry matches", "Office"),
    ):
        text = browser.get("/operator/audit/", query).content.decode()
        assert there in text
        assert absent not in text.partition("<tbody>")[2]
    for query in ({"before": "x"}, {"before": "9" * 40}, {"account": "%"}, {"actor": "'"}):
        assert browser.get("/operator/audit/", query).status_code == 200


def test_an_announcement_stands_on_everybodys_pages_until_it_ends(browser: Client, acme: Account) -> None:
    del acme
    until = (timezone.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    assert (
        browser.post("/operator/announcements/", {"text": "Works on <Sunday>", "weight": "info", "ends_at": until}).status_code
        == 302
    )
    customer = browser_of(Person.objects.get(email="ane@acme.example"))
    assert "Works on &lt;Sunday&gt;" in customer.get("/", follow=True).content.decode()
    assert "Sunday" not in browser_of(None).get("/me/login/").content.decode()
    past = (timezone.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    assert (
        "ends after it begins"
        in browser.post("/operator/announcements/", {"text": "x", "weight": "info", "ends_at": past}).content.decode()
    )
    text = browser.get("/operator/announcements/").content.decode()
    end = re.search(r"/operator/announcements/ann_\w+/end/", text)
    assert end
    browser.post(end[0])
    assert "Sunday" not in customer.get("/", follow=True).content.decode()


def test_the_whole_installations_figures(browser: Client) -> None:
    for query in (
        {},
        {"by": "site"},
        {"by": "account", "period": "12m"},
        {"by": "server"},
        {"dimension": "server", "key": "srv_1"},
    ):
        assert browser.get("/operator/statistics/", query).status_code == 200


def test_no_page_of_operators_is_there_for_others(acme: Account) -> None:
    customer = browser_of(Person.objects.get(email="ane@acme.example"))
    for path in ("", "statistics/", "relays/", "queue/", "domains/", "audit/", "announcements/", f"accounts/{acme.id}/"):
        assert customer.get(f"/operator/{path}").status_code == 404
    assert mail.outbox == []
    assert datetime.now(UTC) > NOW
