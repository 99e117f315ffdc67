"""The management API: it answers as it describes itself, whatever is sent; a key does what it holds, in its account alone."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from postbud.console.accounts.models import Account, AuditEntry
from postbud.console.accounts.permissions import Permission
from postbud.console.accounts.services import close_account
from postbud.console.api import services
from postbud.console.api.models import ManagementKey
from postbud.console.configuration import current
from postbud.console.domains.services import add_domain
from postbud.console.hooks import services as hooks
from postbud.console.link.content import ContentStore
from postbud.console.mail.ingest import ingest
from postbud.console.refused import Refused
from postbud.console.servers.services import create_credential
from postbud.model.event import EventKind
from tests.console.link_server import Relay
from tests.console.making import CONSOLE, browser_of, make_account, make_member, make_person, make_server

_CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
ALL = [permission.value for permission in services.GRANTED]


class Side:
    """An account with one of everything, and a key that may do everything."""

    def __init__(self, number: int, name: str) -> None:
        self.owner = make_person(f"owner@{name.lower()}.example")
        self.account = make_account(name, owner=self.owner)
        self.key = self.new_key(*ALL)
        server = make_server(self.account)
        credential, _ = create_credential(CONSOLE, self.account.id, server.id, kind="smtp", name="Printer")
        domain = add_domain(CONSOLE, self.account.id, f"{name.lower()}.example")
        endpoint, _ = hooks.create_endpoint(
            CONSOLE, self.account.id, f"https://{name.lower()}.example.com/", [], datetime.now(UTC)
        )
        relay = Relay(number, self.account.id)
        at = datetime.now(UTC) - timedelta(hours=1)
        accepted = relay.accepted("ann@b.example", "bob@c.example", at=at, server=server.id, credential=credential.id)
        ended = relay.became(
            accepted, EventKind.BOUNCED, at + timedelta(seconds=3), reply="550 5.1.1 No", classified="recipient"
        )
        ingest(relay.batch(accepted, ended))
        ContentStore(current().folder / "content").put(
            self.account.id, server.id, accepted.message, b"Subject: x\r\n\r\nHello", at
        )
        self.ids = {
            "server_id": server.id, "credential_id": credential.id, "domain_id": domain.id, "webhook_id": endpoint.id,
            "message_id": accepted.message, "delivery_id": accepted.deliveries[0], "dimension": "site",
        }  # fmt: skip

    def new_key(self, *permissions: str) -> str:
        return services.create_key(CONSOLE, self.account.id, "Program", permissions, frozenset(Permission))[1]

    def ask(self, method: str, path: str, body: object = None, key: str | None = None, **query: str) -> Any:
        client = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000", enforce_csrf_checks=True)
        headers = {"Authorization": f"Bearer {key if key is not None else self.key}"}
        more: dict[str, Any] = (
            {"data": body, "content_type": "application/json"} if body is not None else {"data": query or None}
        )
        return getattr(client, method.lower())(f"/api/v1{path}", headers=headers, **more)


@pytest.fixture
def acme(database: str) -> Side:
    return Side(1, "Acme")


@pytest.fixture
def other(acme: Side) -> Side:
    return Side(2, "Other")


def operations() -> Iterator[tuple[str, str]]:
    from postbud.console.api.application import api  # after Django's setup

    for path, found in api().get_openapi_schema()["paths"].items():
        for method in found:
            yield method.upper(), path.removeprefix("/api/v1")


OPERATIONS = list(operations())


def test_everything_the_api_has_is_described() -> None:
    assert len(OPERATIONS) > 30
    assert {path.split("/")[1] for _, path in OPERATIONS} == {
        "account", "servers", "credentials", "domains", "deliveries", "messages", "statistics", "webhooks",
    }  # fmt: skip


EXAMPLES = int(os.environ.get("POSTBUD_SCHEMATHESIS_EXAMPLES", "12"))


@pytest.mark.timeout(300)
def test_whatever_is_sent_the_answer_is_as_described(acme: Side, configure: Any) -> None:
    configure(demo=True)  # no name server is asked
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", get_wsgi_application())
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(), real=st.booleans(), keyed=st.sampled_from([True, True, True, False]))
        def ask(case: Any, real: bool, keyed: bool) -> None:
            nonlocal asked
            asked += 1
            if real and case.path_parameters:
                case.path_parameters |= {name: acme.ids[name] for name in case.path_parameters}
            case.headers = {**(case.headers or {}), **({"Authorization": f"Bearer {acme.key}"} if keyed else {})}
            response = case.call()
            case.validate_response(response, checks=_CHECKS)

        ask()
    print(f"{asked} requests")
    assert asked >= len(OPERATIONS) * 2


def test_every_operation_declares_its_key_and_its_no(acme: Side) -> None:
    reader = acme.new_key()
    seen = set()
    for method, path in OPERATIONS:
        address = path.format(**acme.ids)
        for key in ("", "pbm_x_y", acme.key[:-1] + ("0" if acme.key[-1] != "0" else "1")):
            answer = acme.ask(method, address, {}, key=key) if method != "GET" else acme.ask(method, address, key=key)
            assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json"), (method, path)
        if method != "GET":
            answer = acme.ask(method, address, {}, key=reader)
            assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed"), (method, path)
            seen.add(answer.json()["detail"])
        else:
            assert acme.ask(method, address, key=reader).status_code == 200, (method, path)
    assert len(seen) == 5  # servers, domains, send, hooks, account


@pytest.mark.row("I6")
def test_what_is_anothers_answers_as_what_never_was(acme: Side, other: Side) -> None:
    for method, path in OPERATIONS:
        names = [name for name in acme.ids if f"{{{name}}}" in path and name != "dimension"]
        if not names:
            continue
        foreign = path.format(**{**acme.ids, **{name: other.ids[name] for name in names}})
        never = path.format(**{**acme.ids, **{name: other.ids[name][:-6] + "nobody" for name in names}})
        answers = []
        for address in (foreign, never):
            answer = acme.ask(method, address, {}) if method != "GET" else acme.ask(method, address)
            text = answer.content.decode()
            for name in names:
                text = text.replace(other.ids[name], "ID").replace(other.ids[name][:-6] + "nobody", "ID")
            answers.append((answer.status_code, text))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] in (404, 422), (method, path, answers[0])
    assert AuditEntry.objects.filter(account=other.account.id, actor_kind="api").count() == 0


def test_lists_hold_the_keys_account_alone(acme: Side, other: Side) -> None:
    for path in ("/servers", "/domains", "/webhooks", "/deliveries", f"/servers/{acme.ids['server_id']}/credentials"):
        text = acme.ask("GET", path).content.decode()
        assert not [one for one in other.ids.values() if one in text and one != "site"], path
    found = acme.ask("GET", "/deliveries", server=other.ids["server_id"]).json()
    assert found == {"data": [], "next_cursor": None}


def test_a_program_sets_up_an_account(acme: Side) -> None:
    made = acme.ask("POST", "/servers", {"name": "Shop", "kind": "transactional"})
    assert made.status_code == 201
    server = made.json()["id"]
    assert acme.ask("PATCH", f"/servers/{server}", {"hourly_cap": 100, "keep_content": True}).json()["hourly_cap"] == 100
    assert (
        acme.ask("PATCH", f"/servers/{server}", {"name": "Web shop"}).json() | {}
        == acme.ask("GET", f"/servers/{server}").json()
    )
    changed = acme.ask("PATCH", f"/servers/{server}", {"hourly_cap": None}).json()
    assert (changed["name"], changed["hourly_cap"], changed["keep_content"]) == ("Web shop", None, True)
    device = acme.ask(
        "POST", f"/servers/{server}/credentials", {"kind": "smtp", "name": "Till", "allow_from": ["@acme.example"]}
    ).json()
    assert device["secret"]
    assert "secret" not in acme.ask("GET", f"/credentials/{device['id']}").json()
    rotated = acme.ask("POST", f"/credentials/{device['id']}/rotate", {"overlap_seconds": 60}).json()
    assert rotated["secret"] != device["secret"]
    assert acme.ask("POST", f"/credentials/{device['id']}/revoke").json()["status"] == "revoked"
    assert acme.ask("POST", f"/servers/{server}/pause").json()["status"] == "paused"
    assert acme.ask("POST", f"/servers/{server}/resume").json()["status"] == "active"
    domain = acme.ask("POST", "/domains", {"name": "shop.acme.example"}).json()
    assert {record["purpose"] for record in domain["records"]} == {"proof", "dkim"}
    assert acme.ask("DELETE", f"/domains/{domain['id']}").status_code == 204
    hook = acme.ask("POST", "/webhooks", {"url": "https://shop.example.com/hook", "server": server}).json()
    assert hook["secret"].startswith("whsec_")
    assert acme.ask("PUT", f"/webhooks/{hook['id']}", {"url": "https://shop.example.com/other"}).json()["server"] is None
    assert acme.ask("DELETE", f"/webhooks/{hook['id']}").status_code == 204
    entries = AuditEntry.objects.filter(account=acme.account.id, actor_kind="api")
    assert entries.count() >= 10
    assert {entry.actor for entry in entries} == {ManagementKey.objects.get(account=acme.account.id).id}


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/servers", {"name": "x", "kind": "nonsense"}, "kind"),
        ("POST", "/servers", {"name": "x"}, "kind"),
        ("POST", "/servers", {"name": "x", "kind": "sandbox", "colour": "red"}, "colour"),
        ("POST", "/servers", {"name": "\u0000", "kind": "sandbox"}, "name"),
        ("POST", "/domains", {"name": "localhost"}, "name"),
        ("POST", "/webhooks", {"url": "http://127.0.0.1/"}, "url"),
        ("POST", "/webhooks", {"url": "https://x.example.com/", "kinds": ["nonsense"]}, "kinds"),
        ("POST", "/webhooks", {"url": "https://x.example.com/", "server": "srv_nothing"}, "server"),
        ("PATCH", "/account", {"time_zone": "Moon/Base"}, "time_zone"),
        ("GET", "/statistics?start=2026-01-02&end=2026-01-01", None, "end"),
        ("GET", "/statistics?time_zone=../../etc/passwd", None, "time_zone"),
        ("GET", "/statistics?grain=quarter&start=2026-01-01&end=2026-12-01", None, "grain"),
        ("GET", "/deliveries?cursor=nonsense", None, "cursor"),
        ("GET", "/servers?limit=0", None, "limit"),
        ("GET", "/servers?cursor=%27", None, "cursor"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(acme: Side, method: str, path: str, body: object, field: str) -> None:
    answer = acme.ask(method, path, body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "\ufeff{}", '{"name": ' + "[" * 10_000])
def test_a_body_that_is_none_is_refused(acme: Side, body: str) -> None:
    answer = acme.ask("POST", "/servers", body)
    assert answer.status_code in (400, 422)
    assert answer["Content-Type"] == "application/problem+json"


def test_pages_follow_each_other_and_skip_nothing(acme: Side) -> None:
    for number in range(7):
        make_server(acme.account, f"Server {number}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = acme.ask("GET", "/servers", limit="3", cursor=cursor).json()
        seen += [row["name"] for row in page["data"]]
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    assert sorted(seen) == sorted(["Office", *(f"Server {number}" for number in range(7))])
    both = [acme.ask("GET", "/deliveries", limit="1").json()]
    both.append(acme.ask("GET", "/deliveries", limit="1", cursor=both[0]["next_cursor"]).json())
    assert len({page["data"][0]["id"] for page in both}) == 2
    assert both[1]["next_cursor"] is None


def test_the_log_and_the_figures_agree(acme: Side) -> None:
    bounced = acme.ask("GET", "/deliveries", state="bounced").json()["data"]
    assert [row["reply"] for row in bounced] == ["550 5.1.1 No"]
    figures = acme.ask("GET", "/statistics", grain="hour").json()
    assert (figures["total"]["accepted"], figures["total"]["bounced"], figures["total"]["waiting"]) == (2, 1, 1)
    assert sum(slot["accepted"] for slot in figures["slots"]) == 2
    by_class = acme.ask("GET", "/statistics/by/class").json()["data"]
    assert [(row["key"], row["bounced"]) for row in by_class] == [("recipient", 1)]


def test_messages_are_steered(acme: Side) -> None:
    for what in ("retry", "release", "cancel"):
        answer = acme.ask("POST", f"/messages/{acme.ids['message_id']}/{what}")
        assert (answer.status_code, answer.json()["command"]) == (202, what)
    answer = acme.ask("POST", f"/deliveries/{acme.ids['delivery_id']}/resend")
    assert (answer.status_code, answer.json()["command"]) == (202, "resend")


# -- keys -------------------------------------------------------------------------------------------------------------------


def test_a_key_can_do_no_more_than_its_maker(acme: Side) -> None:
    held = [Permission.VIEW, Permission.SERVERS]
    with pytest.raises(Refused):
        services.create_key(CONSOLE, acme.account.id, "x", ["domains"], held)
    with pytest.raises(Refused):
        services.create_key(CONSOLE, acme.account.id, "x", ["own"], list(Permission))
    made, _ = services.create_key(CONSOLE, acme.account.id, "x", ["servers"], held)
    assert made.permissions == ["view", "servers"]


def test_a_revoked_key_and_a_closed_accounts_open_nothing(acme: Side, other: Side) -> None:
    assert acme.ask("GET", "/account").status_code == 200
    key = ManagementKey.objects.get(account=acme.account.id)
    assert key.last_used_at is not None
    services.revoke_key(CONSOLE, acme.account.id, key.id)
    services.revoke_key(CONSOLE, acme.account.id, key.id)
    assert acme.ask("GET", "/account").status_code == 401
    with pytest.raises(Refused):
        services.revoke_key(CONSOLE, acme.account.id, ManagementKey.objects.get(account=other.account.id).id)
    close_account(CONSOLE, other.account.id)
    assert other.ask("GET", "/account").status_code == 401


def test_a_sending_key_manages_nothing_and_a_managing_key_sends_nothing(acme: Side) -> None:
    _, sending = create_credential(CONSOLE, acme.account.id, acme.ids["server_id"], kind="api", name="Shop")
    assert acme.ask("GET", f"/messages/{acme.ids['message_id']}", key=sending).status_code == 200
    for method, path in OPERATIONS:
        if path != "/messages/{message_id}":
            answer = acme.ask(method, path.format(**acme.ids), {} if method != "GET" else None, key=sending)
            assert answer.status_code == 401, path


@pytest.mark.row("I10")
def test_a_key_in_the_address_is_refused(acme: Side) -> None:
    assert acme.ask("GET", "/account", key=acme.key, token=acme.key).json()["code"] == "key_in_query"


def test_keys_are_made_and_revoked_on_their_page(acme: Side) -> None:
    browser = browser_of(acme.owner)
    path = f"/a/{acme.account.id}/api-keys/"
    assert "Program" in browser.get(path).content.decode()
    text = browser.post(path, {"name": "Nightly", "permissions": ["servers"]}).content.decode()
    key = text.partition("Bearer ")[2].partition('"')[0]
    assert acme.ask("GET", "/account", key=key).status_code == 200
    assert acme.ask("POST", "/domains", {"name": "x.example"}, key=key).status_code == 403
    assert key not in browser.get(path).content.decode()
    made = ManagementKey.objects.get(account=acme.account.id, name="Nightly")
    browser.post(f"{path}{made.id}/revoke/")
    assert acme.ask("GET", "/account", key=key).status_code == 401
    developer = browser_of(make_member(acme.account, "developer", "dev@acme.example"))
    assert developer.get(path).status_code == 403


def test_the_reference_names_every_operation(acme: Side) -> None:
    text = browser_of(acme.owner).get("/api/").content.decode()
    for method, path in OPERATIONS:
        assert f"{method} {path}" in text
    assert browser_of(None).get("/api/").status_code == 200
    answer = browser_of(None).get("/api/v1/nothing/here")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert isinstance(acme.account, Account)
