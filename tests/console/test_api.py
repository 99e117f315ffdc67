"""The console's API: a message's whole history for the key of its server, and nothing for anybody else."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from postbud.console.accounts.models import Account
from postbud.console.accounts.services import block_account
from postbud.console.mail.ingest import ingest
from postbud.console.servers import services as servers
from postbud.console.servers.models import Server
from postbud.model.event import EventKind
from postbud.model.link import NumberedEvent
from tests.console.link_server import Relay
from tests.console.making import CONSOLE, browser_of, make_account, make_person, make_server

NOWHERE = f"msg_{'0' * 26}"


class World:
    """An account with a server, a key of it, and a message that was deferred and then delivered."""

    def __init__(self) -> None:
        self.account = make_account(owner=make_person())
        self.server = make_server(self.account)
        self.credential, self.key = self.new_key(self.account, self.server)
        self.event = self.sent(self.account, self.server)

    def new_key(self, account: Account, server: Server) -> tuple[str, str]:
        made, key = servers.create_credential(CONSOLE, account.id, server.id, kind="api", name=f"Shop of {server.id}")
        return made.id, key

    def sent(self, account: Account, server: Server, spool: int = 7) -> NumberedEvent:
        relay = Relay(spool, account.id)
        at = timezone.now() - timedelta(minutes=1)
        accepted = relay.accepted("ann@b.example", "bob@c.example", at=at, server=server.id, subject="Invoice 12", tag="t")
        said = {"reply": "451 4.7.1 Later", "host": "mx.b.example", "next_attempt_at": at + timedelta(seconds=30)}
        deferred = relay.became(accepted, EventKind.DEFERRED, at + timedelta(seconds=1), **said)
        delivered = relay.became(accepted, EventKind.DELIVERED, at + timedelta(seconds=31), reply="250 2.0.0 Ok", attempt=2)
        ingest(relay.batch(accepted, deferred, delivered))
        return accepted

    def get(self, message: str, key: str = "", **more: object):  # the test client's own response
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000").get(f"/api/v1/messages/{message}", headers=headers, **more)


@pytest.fixture
def world(database: str) -> Iterator[World]:
    return World()


def test_a_message_is_told_with_all_that_happened_to_it(world: World) -> None:
    answer = world.get(world.event.message)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    told = answer.json()
    assert (told["id"], told["subject"], told["tag"]) == (world.event.message, "Invoice 12", "t")
    first, second = told["deliveries"]
    assert (first["mailbox"], first["state"], first["attempts"], first["last_reply"]) == (
        "ann@b.example",
        "delivered",
        2,
        "250 2.0.0 Ok",
    )
    assert (second["mailbox"], second["state"]) == ("bob@c.example", "queued")
    assert [event["kind"] for event in told["events"]] == ["accepted", "deferred", "delivered"]
    assert told["events"][1]["recipient"] == "ann@b.example"
    assert told["events"][1]["next_attempt_at"].endswith("Z")
    assert world.get(world.event.deliveries[1]).json() == told


@pytest.mark.row("I6")
def test_what_is_anothers_answers_as_what_never_was(world: World) -> None:
    other = make_account("Other", owner=make_person("olga@other.example"))
    foreign = world.sent(other, make_server(other), 8)
    second = make_server(world.account, "Second")
    beside = world.sent(world.account, second, 9)
    never = world.get(NOWHERE)
    assert never.status_code == 404
    for event in (foreign, beside):
        for public_id in (event.message, event.deliveries[0]):
            answer = world.get(public_id)
            assert answer.status_code == 404
            assert answer.content.replace(public_id.encode(), b"ID") == never.content.replace(NOWHERE.encode(), b"ID")
            assert dict(answer.headers) | {"Expires": ""} == dict(never.headers) | {"Expires": ""}
    _, key = world.new_key(world.account, second)
    assert world.get(beside.message, key).status_code == 200


@pytest.mark.row("I10")
def test_only_a_key_that_lives_opens_it_and_never_from_the_address(world: World) -> None:
    wrong = world.key[:-8] + "x" * 8
    for key in ("nonsense", wrong, world.key + " x", "pbk_" + "a" * 500, "\u00e6"):
        answer = world.get(NOWHERE, key)
        assert (answer.status_code, answer.json()["code"], answer["WWW-Authenticate"]) == (401, "auth_failed", "Bearer")
    answer = world.get(world.event.message, QUERY_STRING=f"key={world.key}")
    assert (answer.status_code, answer.json()["code"]) == (400, "key_in_query")
    signed_in = browser_of(make_person("eve@acme.example"))
    assert signed_in.get(f"/api/v1/messages/{world.event.message}").status_code == 401
    servers.revoke_credential(CONSOLE, world.account.id, world.credential)
    assert world.get(world.event.message).status_code == 401


def test_the_former_key_works_until_its_overlap_ends(world: World) -> None:
    _, fresh = servers.rotate_credential(CONSOLE, world.account.id, world.credential, timedelta(hours=1))
    assert {world.get(world.event.message, key).status_code for key in (fresh, world.key)} == {200}
    servers.rotate_credential(CONSOLE, world.account.id, world.credential, timedelta(0))
    assert {world.get(world.event.message, key).status_code for key in (fresh, world.key)} == {401}


def test_a_blocked_account_has_no_keys(world: World) -> None:
    block_account(CONSOLE, world.account.id, "case_1")
    assert world.get(world.event.message).status_code == 401


def test_other_methods_are_refused_and_nonsense_is_not_found(world: World) -> None:
    client = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000", enforce_csrf_checks=True)
    for method in ("POST", "PUT", "DELETE"):
        headers = {"Authorization": f"Bearer {world.key}"}
        answer = client.generic(method, f"/api/v1/messages/{world.event.message}", headers=headers)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    for nonsense in ("msg_", "dlv_zz", "%27", "x" * 3000, "dlv_" + "z" * 26, "msg_%F0%9F%93%AE"):
        answer = world.get(nonsense)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), nonsense
