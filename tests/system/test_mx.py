"""MX resolution of a whole relay: a scripted DNS server, next hops on loopback (rows 26-30, K7)."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.ports import free_port
from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.dns_stub import DnsStub, Zone
from tests.system.harness import Relay
from tests.system.smtp import make_content, new_test_id, queued_id, submit
from tests.system.test_relay_dsn import Report, unfolded

Make = Callable[..., Pair]
ZONE: Zone = {
    ("good.example", "MX"): ["10 mx1.good.example.", "20 mx2.good.example."],
    ("mx1.good.example", "A"): ["127.0.0.77"],  # nobody listens there
    ("mx2.good.example", "A"): ["127.0.0.1"],
    ("implicit.example", "A"): ["127.0.0.1"],
    ("null.example", "MX"): ["0 ."],
    ("empty.example", "TXT"): ["nothing to mail to"],
    ("alias.example", "CNAME"): ["good.example."],
    ("sick.example", "MX"): "SERVFAIL",
    ("silent.example", "MX"): "TIMEOUT",
    ("refused.example", "MX"): "REFUSED",
    ("private.example", "MX"): ["10 mx.private.example."],
    ("mx.private.example", "A"): ["10.0.0.1"],
    ("literal.example", "MX"): ["10 127.0.0.1."],
}


@pytest.fixture(scope="module")
def dns_port() -> Iterator[int]:
    """The scripted server, in a thread of its own."""
    ready, stop = threading.Event(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        async with DnsStub(ZONE) as stub:
            found.append(stub.port)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.1)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield found[0]
    stop.set()
    thread.join(10)


@pytest.fixture
def relay_by_mx(pair: Make, dns_port: int) -> Pair:
    """A relay without routes; its MX hops are on the sink's port."""
    smtp_port = free_port()
    settings = Settings(
        relay={"smtp_port": smtp_port, "expire_after_seconds": 600, "retry_max_seconds": 2},
        extra=f'[dns]\nnameservers = ["127.0.0.1:{dns_port}"]\n',
    )
    settings.routes = dict.fromkeys(("acme.example", "dest.example"), f"127.0.0.1:{smtp_port}")  # where DSNs go
    settings.next_hop = ""
    relay, sink = pair(settings, start=False)
    sink.close()
    sink.port = smtp_port
    sink.start()
    relay.settings.next_hop = None
    relay.write_settings()
    relay.start()
    return relay, sink


def send(relay: Relay, domain: str) -> str:
    return queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), [f"a@{domain}"]))


@pytest.mark.row("26", "27", "28", "29", "30", "K7")
@pytest.mark.timeout(180)
def test_each_kind_of_answer_has_its_outcome_and_none_stops_the_others(relay_by_mx: Pair) -> None:
    relay, _ = relay_by_mx
    wanted = {
        "good.example": ("delivered", ""),
        "implicit.example": ("delivered", ""),
        "alias.example": ("delivered", ""),
        "null.example": ("bounced", "5.1.10"),
        "missing.example": ("bounced", "5.1.2"),
        "empty.example": ("bounced", "5.4.4"),
        "private.example": ("bounced", "5.4."),
    }
    stuck = {"sick.example": "4.4.3", "silent.example": "4.4.3", "refused.example": "4.4.3"}
    messages = {domain: send(relay, domain) for domain in [*stuck, *wanted]}
    relay.wait_final({messages[domain] for domain in wanted}, 60)
    for domain, (kind, enhanced) in wanted.items():
        last = relay.events_of(messages[domain])[-1]
        assert (domain, last["kind"]) == (domain, kind)
        assert last.get("enhanced", "").startswith(enhanced), (domain, last)
    for domain, enhanced in stuck.items():
        kinds = [event["kind"] for event in relay.events_of(messages[domain])]
        assert set(kinds) <= {"accepted", "deferred"}, (domain, kinds)
        deferred = [event for event in relay.events_of(messages[domain]) if event["kind"] == "deferred"]
        assert all(event["enhanced"] == enhanced for event in deferred), (domain, deferred)
    assert {row["message"] for row in relay.queue()} >= {messages[domain] for domain in stuck}


@pytest.mark.row("26", "27")
@pytest.mark.parametrize(
    ("mailbox", "status", "said"),
    [
        ("a@missing.example", "5.1.2", "x-postbud; "),
        ("a@null.example", "5.1.10", "x-postbud; "),
        ("a@empty.example", "5.4.4", "x-postbud; "),
        ("rcpt-550-@dest.example", "5.2.1", "smtp; 550 5.2.1 "),
        ("dot-554-@dest.example", "5.0.0", "smtp; 554 5.0.0 "),
    ],
)
def test_our_report_names_the_status_of_what_happened(relay_by_mx: Pair, mailbox: str, status: str, said: str) -> None:
    relay, sink = relay_by_mx
    test_id = new_test_id()
    sender = f"from-{test_id}@acme.example"
    submit(relay.ports["cleartext"], make_content(test_id), [mailbox], sender=sender)
    (record,) = sink.wait_for(lambda found: found["recipients"] == [sender])
    (block,) = Report(record).recipients
    assert (block["Action"], block["Status"]) == ("failed", status)
    assert unfolded(block["Diagnostic-Code"]).startswith(said)
    assert (block["Remote-MTA"] is None) is said.startswith("x-postbud")
