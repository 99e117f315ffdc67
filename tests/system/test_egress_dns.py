"""From a domain to its hosts against a scripted DNS server: rows 26 to 30, 33, K6."""

import asyncio
import random
import time
from collections import Counter

import pytest

from postbud.egress.resolve import MAX_HOSTS, Exchangers, find_exchangers, site_of
from postbud.model.outcome import Bounced, Deferred
from postbud.net.dns import Absence, Found, Missing, Resolver, ResolverSettings, Unavailable
from tests.system.dns_stub import DnsStub, Zone


def resolver_of(*stubs: DnsStub, **changes: float) -> Resolver:
    servers = tuple(("127.0.0.1", stub.port) for stub in stubs)
    return Resolver(ResolverSettings(servers, timeout_seconds=0.3, rounds=1, **changes), time.monotonic)  # type: ignore[arg-type]  # floats


async def find(zone: Zone, domain: str = "dest.example", seed: int = 1, **stub: bool) -> Exchangers | Deferred | Bounced:
    async with DnsStub(zone, **stub) as server:
        return await find_exchangers(resolver_of(server), domain, "relay.example", random.Random(seed))


@pytest.mark.row("26")
@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "TIMEOUT", "GARBAGE"])
async def test_trouble_of_name_servers_defers(fault: str) -> None:
    for zone in ({("dest.example", "MX"): fault}, {("dest.example", "A"): fault}, {("dest.example", "AAAA"): fault}):
        outcome = await find(dict(zone))
        assert isinstance(outcome, Deferred)
        assert outcome.enhanced == "4.4.3"


@pytest.mark.row("27")
async def test_a_domain_that_is_not_there_bounces() -> None:
    nowhere = await find({})
    assert isinstance(nowhere, Bounced)
    assert nowhere.enhanced == "5.1.2"
    barren = await find({("dest.example", "TXT"): ['"no mail"']})
    assert isinstance(barren, Bounced)
    assert barren.enhanced == "5.4.4"


@pytest.mark.row("28")
@pytest.mark.parametrize("kind", ["A", "AAAA"])
async def test_without_mx_the_domain_is_its_own_host(kind: str) -> None:
    address = "198.41.0.4" if kind == "A" else "2a00::4"
    assert await find({("dest.example", kind): [address]}) == Exchangers("dest.example", ("dest.example",))


@pytest.mark.row("29")
async def test_null_mx_bounces_and_is_ignored_among_others() -> None:
    null = await find({("dest.example", "MX"): ["0 ."]})
    assert isinstance(null, Bounced)
    assert null.enhanced == "5.1.10"
    assert await find({("dest.example", "MX"): ["0 .", "10 mx.dest.example."]}) == Exchangers(
        "mx.dest.example", ("mx.dest.example",)
    )
    malformed = await find({("dest.example", "MX"): ["10 ."]})
    assert isinstance(malformed, Deferred)


@pytest.mark.row("30")
async def test_preference_orders_and_equal_ones_come_in_random_order() -> None:
    zone: Zone = {("dest.example", "MX"): ["20 c.example.", "10 a.example.", "10 b.example."]}
    firsts: Counter[str] = Counter()
    for seed in range(40):
        found = await find(zone, seed=seed)
        assert isinstance(found, Exchangers)
        assert found.hosts[2] == "c.example"
        firsts[found.hosts[0]] += 1
    assert set(firsts) == {"a.example", "b.example"}


@pytest.mark.row("30")
async def test_mx_that_are_addresses_are_passed_over() -> None:
    mixed = await find({("dest.example", "MX"): ["5 192.0.2.1.", "10 mx.dest.example."]})
    assert mixed == Exchangers("mx.dest.example", ("mx.dest.example",))
    only = await find({("dest.example", "MX"): ["5 192.0.2.1."]})
    assert isinstance(only, Deferred)
    assert only.enhanced == "4.4.4"


async def test_we_stop_at_our_own_name() -> None:
    behind = await find({("dest.example", "MX"): ["5 first.example.", "10 relay.example.", "20 third.example."]})
    assert behind == Exchangers("first.example", ("first.example",))
    for zone in ({("dest.example", "MX"): ["10 relay.example.", "20 third.example."]},):
        loop = await find(dict(zone))
        assert isinstance(loop, Bounced)
        assert loop.enhanced == "5.4.6"
    own = await find({("relay.example", "A"): ["198.41.0.4"]}, domain="relay.example")
    assert isinstance(own, Bounced)
    assert own.enhanced == "5.4.6"


@pytest.mark.row("30")
@pytest.mark.parametrize("chase", [True, False])
async def test_an_alias_is_followed(chase: bool) -> None:
    zone: Zone = {("alias.example", "CNAME"): ["real.example."], ("real.example", "A"): ["198.41.0.4"]}
    async with DnsStub(zone, chase=chase) as server:
        assert await resolver_of(server).lookup("alias.example", "A") == Found(("198.41.0.4",))


@pytest.mark.row("K6")
@pytest.mark.parametrize("chase", [True, False])
async def test_a_loop_of_aliases_ends_in_doubt_not_in_a_storm(chase: bool) -> None:
    zone: Zone = {("a.example", "CNAME"): ["b.example."], ("b.example", "CNAME"): ["a.example."]}
    async with DnsStub(zone, chase=chase) as server:
        assert isinstance(await resolver_of(server).lookup("a.example", "A"), Unavailable)
        assert len(server.asked) <= 4


@pytest.mark.row("K6")
async def test_a_thousand_mx_become_twenty_hosts() -> None:
    found = await find({("dest.example", "MX"): [f"10 mx{at}.dest.example." for at in range(900)]})
    assert isinstance(found, Exchangers)
    assert len(found.hosts) == MAX_HOSTS
    assert len(found.site) < 300
    more = await find({("dest.example", "MX"): [f"10 m{at}.x." for at in range(1100)]})
    assert isinstance(more, Deferred)


@pytest.mark.row("K6")
async def test_large_texts_and_ttl_zero_do_no_harm() -> None:
    zone: Zone = {("dest.example", "TXT"): [" ".join(['"' + "a" * 250 + '"'] * 200)]}
    async with DnsStub(zone, ttl=0) as server:
        resolver = resolver_of(server)
        for _ in range(5):
            found = await resolver.lookup("dest.example", "TXT")
            assert isinstance(found, Found)
            assert len(found.texts[0]) == 50_000
        assert resolver.queries == 1


@pytest.mark.row("33")
async def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    async with DnsStub({("dest.example", "MX"): ("TRUNCATE", ["10 mx.dest.example."])}) as server:
        assert isinstance(await resolver_of(server).lookup("dest.example", "MX"), Found)
        assert [transport for transport, *_ in server.asked] == ["udp", "tcp"]


@pytest.mark.row("33")
async def test_an_answer_with_the_wrong_id_is_not_believed() -> None:
    async with DnsStub({("dest.example", "A"): ("SPOOF", ["198.41.0.4"])}) as server:
        assert await resolver_of(server).lookup("dest.example", "A") == Found(("198.41.0.4",))


@pytest.mark.row("33")
@pytest.mark.parametrize("fault", ["TIMEOUT", "SERVFAIL"])
async def test_the_second_name_server_is_asked_when_the_first_fails(fault: str) -> None:
    async with DnsStub({("d.example", "A"): fault}) as first, DnsStub({("d.example", "A"): ["198.41.0.4"]}) as second:
        assert isinstance(await resolver_of(first, second).lookup("d.example", "A"), Found)


async def test_answers_are_remembered_and_forgotten() -> None:
    now = [0.0]
    async with DnsStub({("d.example", "A"): ["198.41.0.4"]}, ttl=60) as server:
        settings = ResolverSettings((("127.0.0.1", server.port),), cache_entries=2)
        resolver = Resolver(settings, lambda: now[0])
        assert await resolver.lookup("d.example", "A") == await resolver.lookup("d.example", "A")
        assert await resolver.lookup("other.example", "A") == Missing(Absence.NXDOMAIN)
        assert resolver.queries == 2
        now[0] = 61.0
        assert resolver.known("d.example", "A") is None
        await resolver.lookup("d.example", "A")
        assert resolver.queries == 3
        await resolver.lookup("third.example", "A")
        assert resolver.known("other.example", "A") is None


async def test_equal_questions_at_one_time_are_one_query() -> None:
    async with DnsStub({("d.example", "A"): ["198.41.0.4"]}) as server:
        resolver = resolver_of(server)
        found = await asyncio.gather(*(resolver.lookup("d.example", "A") for _ in range(50)))
        assert set(found) == {Found(("198.41.0.4",))}
        assert resolver.queries == 1


async def test_a_name_that_is_none_is_not_asked_for() -> None:
    async with DnsStub({}) as server:
        assert await resolver_of(server).lookup("a" * 70 + ".example", "MX") == Missing(Absence.NXDOMAIN)
        assert server.asked == []


def test_a_site_is_the_whole_set_of_hosts() -> None:
    assert site_of(["mx.a.example"]) == "mx.a.example"
    assert (
        site_of(["b.l.google.com", "a.l.google.com"]) == site_of(["a.l.google.com", "b.l.google.com"]) == "(a|b).l.google.com"
    )
    assert site_of(["mxa-001.gslb.example", "mxb-001.gslb.example"]) != site_of(
        ["mxa-002.gslb.example", "mxb-002.gslb.example"]
    )
    assert site_of(["l.google.com", "a.l.google.com"]) == "(a.l|l).google.com"
    assert site_of(["a.example", "b.other"]) == "(a.example|b.other)"
    assert site_of(["mx.x", "x"]) == "(mx.x|x)"
