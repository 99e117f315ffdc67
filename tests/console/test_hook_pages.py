"""The pages of webhooks, as a person walks them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from postbud.console.accounts import audit
from postbud.console.accounts import services as accounts
from postbud.console.accounts.models import Account, Person
from postbud.console.fields import to_micros
from postbud.console.hooks import outbox, queue, services
from postbud.console.hooks.models import Endpoint, Hook
from postbud.console.transaction import write
from postbud.model.event import Event, EventKind

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"
URL = "https://shop.acme.com/hooks"


@pytest.fixture
def account(database: str, client: Client) -> Account:
    person = Person.objects.create_user(email="ane@acme.example", password="a long sentence of words")
    made = accounts.create_account(audit.SYSTEM, "Acme", owner=person)
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    return made


def address(account: Account, *parts: object) -> str:
    return "/".join([f"/a/{account.id}/webhooks", *map(str, parts), ""])


def test_a_person_adds_an_endpoint_sees_its_secret_once_and_deletes_it(client: Client, account: Account) -> None:
    assert "Add an endpoint" in client.get(address(account)).content.decode()
    answer = client.post(address(account, "new"), {"url": URL, "kinds": ["delivery.bounced"]})
    assert answer.status_code == 200
    assert "whsec_" in answer.content.decode()
    endpoint = Endpoint.objects.get()
    page = client.get(address(account, endpoint.id)).content.decode()
    assert "whsec_" not in page
    assert URL in page
    assert client.post(address(account, endpoint.id, "pause")).status_code == 302
    assert client.post(address(account, endpoint.id, "resume")).status_code == 302
    assert "whsec_" in client.post(address(account, endpoint.id, "secret")).content.decode()
    changed = client.post(address(account, endpoint.id, "settings"), {"url": f"{URL}/two", "description": "Shop"})
    assert changed.status_code == 302
    assert Endpoint.objects.get().description == "Shop"
    assert client.post(address(account, endpoint.id, "delete")).status_code == 302
    assert not Endpoint.objects.exists()


@pytest.mark.row("J4")
def test_a_url_that_leads_inside_is_refused_at_its_field(client: Client, account: Account) -> None:
    answer = client.post(address(account, "new"), {"url": "http://169.254.169.254/"})
    assert answer.status_code == 422
    assert "not on the public internet" in answer.content.decode()
    assert not Endpoint.objects.exists()


@pytest.mark.row("J7")
def test_what_strangers_answer_is_shown_as_text(client: Client, account: Account) -> None:
    endpoint, _ = services.create_endpoint(audit.SYSTEM, account.id, URL, [], NOW, description=HOSTILE)
    event = Event(
        id="evt_1", kind=EventKind.BOUNCED, at=NOW, account=account.id, message="msg_1", subject=HOSTILE, reply=f"550 {HOSTILE}"
    )
    with write(), connection.cursor() as cursor:
        outbox.tell(cursor, [event], to_micros(NOW))
    due = queue.due(NOW, lambda _: 1, ())[0]
    result: dict[str, Any] = {"due": due, "at": NOW, "milliseconds": 7, "delivered": False, "next_at": NOW, "pause": False}
    queue.record(queue.Result(status=500, error=HOSTILE, answer=HOSTILE, **result))
    hook = Hook.objects.get()
    for page in (address(account), address(account, endpoint.id), address(account, endpoint.id, "posts", hook.pk)):
        text = client.get(page).content.decode()
        assert HOSTILE not in text
        assert "&lt;script&gt;" in text


def test_a_test_post_and_a_replay_go_to_the_outbox(client: Client, account: Account) -> None:
    endpoint, _ = services.create_endpoint(audit.SYSTEM, account.id, URL, [], NOW)
    answer = client.post(address(account, endpoint.id, "test"))
    hook = Hook.objects.get()
    assert answer["Location"] == address(account, endpoint.id, "posts", hook.pk)
    assert "endpoint.test" in client.get(answer["Location"]).content.decode()
    Hook.objects.update(state="expired", next_at=None)
    assert "Send again what was given up" in client.get(address(account, endpoint.id)).content.decode()
    assert client.post(address(account, endpoint.id, "replay")).status_code == 302
    assert Hook.objects.get().state == "waiting"


@pytest.mark.parametrize("garbage", ["0", "x", "9" * 40, "-1", "%00"])
def test_garbage_in_the_address_bar_is_harmless(client: Client, account: Account, garbage: str) -> None:
    endpoint, _ = services.create_endpoint(audit.SYSTEM, account.id, URL, [], NOW)
    expected = 400 if garbage == "%00" else 200
    assert client.get(f"{address(account, endpoint.id)}?before={garbage}&state={garbage}").status_code == expected
    assert client.get(f"/a/{account.id}/webhooks/{garbage}/").status_code == 404


def test_the_pages_speak_danish(client: Client, account: Account) -> None:
    text = client.get(address(account), HTTP_ACCEPT_LANGUAGE="da").content.decode()
    assert "Tilføj en modtager" in text
