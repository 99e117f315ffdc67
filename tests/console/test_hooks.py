"""Webhooks on both databases, against a real HTTP server on loopback."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from standardwebhooks.webhooks import Webhook

from postbud.console.accounts import audit
from postbud.console.fields import to_micros
from postbud.console.hooks import outbox, queue, sender, services
from postbud.console.hooks.models import Attempt, Endpoint, EndpointStatus, Hook, HookState
from postbud.console.jobs import services as jobs
from postbud.console.jobs.loops import _hook_client
from postbud.console.transaction import write
from postbud.model.event import Event, EventKind
from postbud.telemetry.logs import configure

ACCOUNT = "acct_one"
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LOG, _ = configure(level="error", as_json=True, worker="test")


class Receiver:
    """A customer's program: answers as told, remembers what it heard."""

    def __init__(self) -> None:
        receiver = self
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.refused_once: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.heard.append(({key.lower(): value for key, value in self.headers.items()}, body))
                refused = self.headers["webhook-id"] in receiver.refused_once
                receiver.refused_once.discard(self.headers["webhook-id"])
                self.send_response(500 if refused else receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks?from=postbud"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def events(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.heard]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def allow_loopback(configure: Callable[..., Any], receiver: Receiver) -> None:
    configure(hook_networks=["127.0.0.0/8"], hook_ports=[receiver.server.server_port])


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


def event(
    number: int, kind: EventKind = EventKind.DELIVERED, *, message: str = "msg_1", account: str = ACCOUNT, **more: Any
) -> Event:
    return Event(
        id=f"evt_{number}", kind=kind, at=NOW, account=account, message=message, delivery="dlv_1",
        recipient="ann@customer.example", **more,
    )  # fmt: skip


def tell(*events: Event) -> int:
    with write(), connection.cursor() as cursor:
        return outbox.tell(cursor, events, to_micros(NOW))


def endpoint(url: str, *kinds: str, account: str = ACCOUNT, server: str = "") -> tuple[Endpoint, str]:
    return services.create_endpoint(audit.SYSTEM, account, url, kinds, NOW, server=server)


def send(clock: Clock) -> int:
    return turn(clock, threading.Event())


def turn(clock: Clock, stop: threading.Event) -> int:
    sending = sender.Sender(_hook_client, clock)
    try:
        return asyncio.run(sending.turn(stop, LOG))
    finally:
        sending.close()


def test_an_event_is_posted_once_signed_and_as_the_specification_says(
    database: str, allow_loopback: None, receiver: Receiver
) -> None:
    _, secret = endpoint(receiver.url)
    reply = "550 5.1.1 <script>alert(1)</script>"
    assert tell(event(1, EventKind.BOUNCED, reply=reply), event(1, EventKind.BOUNCED)) == 2  # the second is the same event
    assert send(Clock()) == 1
    headers, body = receiver.heard[0]
    assert headers["content-type"] == "application/json"
    Webhook(secret)
    told = json.loads(body)
    assert told["type"] == "delivery.bounced"
    assert told["data"]["reply"] == reply
    assert told["data"]["recipient"] == "ann@customer.example"
    signed = Webhook(secret).sign(
        headers["webhook-id"], datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC), body.decode()
    )
    assert headers["webhook-signature"] == signed
    assert Hook.objects.get().state == HookState.DELIVERED
    assert Attempt.objects.get().status == 204
    assert send(Clock()) == 0


def test_an_endpoint_hears_only_its_account_its_server_and_its_kinds(
    database: str, allow_loopback: None, receiver: Receiver
) -> None:
    endpoint(receiver.url, "delivery.bounced", server="srv_a")
    endpoint(receiver.url, account="acct_two")
    tell(
        event(1, EventKind.BOUNCED, server="srv_a"),
        event(2, EventKind.BOUNCED, server="srv_b"),
        event(3, EventKind.DELIVERED, server="srv_a"),
        event(4, EventKind.COMMANDED),
        event(5, account="acct_three"),
    )
    send(Clock())
    assert receiver.events == ["evt_1"]


def test_events_of_one_message_are_told_in_order_and_a_failure_makes_the_later_ones_wait(
    database: str, allow_loopback: None, receiver: Receiver
) -> None:
    endpoint(receiver.url)
    receiver.refused_once = {"evt_1"}
    clock = Clock()
    tell(event(1, EventKind.ACCEPTED), event(2, EventKind.DEFERRED), event(3), event(4, message=""))
    tell(event(5, message="msg_2"))
    send(clock)
    assert set(receiver.events) == {"evt_1", "evt_4", "evt_5"}
    clock.now += timedelta(seconds=30)
    send(clock)
    assert [one for one in receiver.events if one in {"evt_1", "evt_2", "evt_3"}] == ["evt_1", "evt_1", "evt_2", "evt_3"]
    assert Hook.objects.get(event="evt_1").attempts == 2


@pytest.mark.row("J6", "59")
def test_a_hook_is_tried_for_three_days_then_given_up_and_its_endpoint_paused(
    database: str, allow_loopback: None, receiver: Receiver
) -> None:
    made, _ = endpoint(receiver.url)
    receiver.answers = [503] * 100
    clock = Clock()
    tell(event(1))
    for _ in range(len(sender.RETRY_SECONDS) + 1):
        assert send(clock) == 1
        assert send(clock) == 0
        due = Hook.objects.get().next_at
        clock.now = due if due is not None else clock.now
    assert (clock.now - NOW) >= timedelta(days=2.5)
    hook = Hook.objects.get()
    assert (hook.state, hook.attempts) == (HookState.EXPIRED, len(sender.RETRY_SECONDS) + 1)
    tell(event(2))
    clock.now += timedelta(days=1)
    send(clock)
    assert Endpoint.objects.get(id=made.id).status == EndpointStatus.FAILING
    clock.now += timedelta(days=1)
    assert send(clock) == 0
    receiver.answers = []
    services.set_active(audit.SYSTEM, ACCOUNT, made.id, active=True)
    assert services.replay(audit.SYSTEM, ACCOUNT, made.id, clock.now) == 1
    assert send(clock) == 2
    assert set(Hook.objects.values_list("state", flat=True)) == {HookState.DELIVERED}


def test_an_endpoint_that_says_gone_is_paused_at_once(database: str, allow_loopback: None, receiver: Receiver) -> None:
    made, _ = endpoint(receiver.url)
    receiver.answers = [410]
    tell(event(1))
    send(Clock())
    assert Endpoint.objects.get(id=made.id).status == EndpointStatus.FAILING


@pytest.mark.row("J6")
def test_a_silent_endpoint_does_not_keep_others_waiting(database: str, allow_loopback: None, receiver: Receiver) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        port = silent.getsockname()[1]
        from django.conf import settings

        from postbud.console.configuration import ConsoleSettings

        console: ConsoleSettings = settings.CONSOLE
        console.hook_ports.append(port)
        endpoint(f"http://127.0.0.1:{port}/", account="acct_slow")
        endpoint(receiver.url)
        tell(*(event(number, message=f"msg_{number}", account="acct_slow") for number in range(100, 160)))
        tell(*(event(number, message=f"msg_{number}") for number in range(30)))
        stop = threading.Event()
        threading.Timer(3.0, stop.set).start()
        turn(Clock(), stop)
    assert len(receiver.heard) == 30
    assert Hook.objects.filter(account="acct_slow", state=HookState.WAITING).count() == 60


def test_two_secrets_sign_while_one_replaces_the_other(database: str, allow_loopback: None, receiver: Receiver) -> None:
    made, former = endpoint(receiver.url)
    clock = Clock()
    present = services.rotate_secret(audit.SYSTEM, ACCOUNT, made.id, clock.now, timedelta(hours=24))
    tell(event(1))
    send(clock)
    clock.now += timedelta(hours=25)
    tell(event(2))
    send(clock)
    both, one = (headers["webhook-signature"].split() for headers, _ in receiver.heard)
    assert len(both) == 2
    assert len(one) == 1
    for secret in (present, former):
        headers, body = receiver.heard[0]
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert Webhook(secret).sign(headers["webhook-id"], at, body.decode()) in both
    assert former.encode() not in bytes(made.sealed_secret)


@pytest.mark.row("J4")
@pytest.mark.parametrize(
    "url", ["http://127.1/", "http://169.254.169.254/", "https://localhost./", "file:///etc/passwd", "https://a.example:25/"]
)
def test_an_endpoint_that_leads_inside_is_refused_with_a_text_for_its_field(database: str, url: str) -> None:
    with pytest.raises(services.EndpointRefused) as refused:
        endpoint(url)
    assert refused.value.field == "url"
    assert Endpoint.objects.count() == 0


def test_another_accounts_endpoint_is_not_there(database: str, allow_loopback: None, receiver: Receiver) -> None:
    made, _ = endpoint(receiver.url)
    for act in (
        lambda: services.rotate_secret(audit.SYSTEM, "acct_two", made.id, NOW, timedelta()),
        lambda: services.set_active(audit.SYSTEM, "acct_two", made.id, active=False),
        lambda: services.delete_endpoint(audit.SYSTEM, "acct_two", made.id),
        lambda: services.send_test(audit.SYSTEM, "acct_two", made.id, NOW),
        lambda: services.update_endpoint(audit.SYSTEM, "acct_two", made.id, receiver.url, []),
    ):
        with pytest.raises(Endpoint.DoesNotExist):
            act()
    tell(event(1))
    assert services.replay(audit.SYSTEM, "acct_two", made.id, NOW, [Hook.objects.get().id]) == 0


@pytest.mark.row("59")
def test_the_outbox_is_bounded_by_age_and_size(
    database: str, allow_loopback: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MAX_WAITING", 10)
    endpoint(receiver.url)
    tell(*(event(number, message=f"msg_{number}") for number in range(25)))
    assert services.prune(NOW) == 15
    assert list(Hook.objects.filter(state=HookState.WAITING).values_list("event", flat=True).order_by("id")) == [
        f"evt_{number}" for number in range(15, 25)
    ]
    services.prune(NOW + timedelta(days=8))
    assert not Hook.objects.filter(state=HookState.WAITING).exists()
    services.prune(NOW + timedelta(days=31))
    assert not Hook.objects.exists()


def test_a_paused_endpoint_gathers_nothing_new_and_a_test_can_be_sent(
    database: str, allow_loopback: None, receiver: Receiver
) -> None:
    made, _ = endpoint(receiver.url)
    services.set_active(audit.SYSTEM, ACCOUNT, made.id, active=False)
    assert tell(event(1)) == 0
    services.set_active(audit.SYSTEM, ACCOUNT, made.id, active=True)
    services.send_test(audit.SYSTEM, ACCOUNT, made.id, NOW)
    send(Clock())
    assert json.loads(receiver.heard[0][1])["type"] == "endpoint.test"


def test_every_write_is_in_the_audit_log_without_the_secret(database: str, allow_loopback: None, receiver: Receiver) -> None:
    made, secret = endpoint(receiver.url)
    services.rotate_secret(audit.SYSTEM, ACCOUNT, made.id, NOW, timedelta(hours=1))
    services.delete_endpoint(audit.SYSTEM, ACCOUNT, made.id)
    from postbud.console.accounts.models import AuditEntry

    entries = list(AuditEntry.objects.filter(account=ACCOUNT).order_by("number"))
    assert [entry.action for entry in entries] == ["endpoint.create", "endpoint.rotate_secret", "endpoint.delete"]
    assert not any(secret in json.dumps([entry.before, entry.after]) for entry in entries)


def test_a_hook_whose_secret_does_not_open_waits(database: str, allow_loopback: None, receiver: Receiver) -> None:
    made, _ = endpoint(receiver.url)
    tell(event(1))
    Endpoint.objects.filter(id=made.id).update(sealed_secret=b"\x01" + b"x" * 60)
    assert send(Clock()) == 0
    assert queue.due(NOW, lambda _: 4, ()) == []
    assert Hook.objects.get().state == HookState.WAITING


def test_one_owner_at_a_time_has_a_loops_lease(database: str) -> None:
    minute = timedelta(minutes=1)
    assert jobs.take("send-hooks", "a", NOW, minute)
    assert jobs.take("send-hooks", "a", NOW, minute)
    assert not jobs.take("send-hooks", "b", NOW + timedelta(seconds=59), minute)
    assert jobs.take("send-hooks", "b", NOW + timedelta(seconds=61), minute)
    jobs.give_back("send-hooks", "a")
    assert not jobs.take("send-hooks", "a", NOW + timedelta(seconds=62), minute)
    jobs.give_back("send-hooks", "b")
    assert jobs.take("send-hooks", "a", NOW + timedelta(seconds=62), minute)


def test_every_type_of_a_webhook_stands_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
    assert [kind for kind in services.KINDS if f"`{kind}`" not in text] == []
