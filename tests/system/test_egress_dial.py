"""From a routing to a session: hops, addresses, TLS, AUTH. Rows 30, 31, 34, 35, 42, 43, K2, K7, K9, and real servers."""

import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink as AiosmtpdSink

from postbud.egress.client import Connection
from postbud.egress.egress import Egress
from postbud.egress.routing import Hop, match_route, parse_next_hop
from postbud.egress.settings import EgressSettings, RouteSettings, SourceSettings, TlsMode
from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome
from postbud.net.dns import ResolverSettings
from tests.ports import free_port
from tests.system.certificates import make_certificate
from tests.system.dns_stub import DnsStub, Zone
from tests.system.sink import Sink
from tests.system.test_egress_client import LETTER, TIMERS, deferred, letter, open_to

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MX: Zone = {
    ("dest.example", "MX"): ["10 mx1.dest.example.", "20 mx2.dest.example."],
    ("mx1.dest.example", "A"): ["127.0.0.2"],
    ("mx2.dest.example", "A"): ["127.0.0.3"],
}


@asynccontextmanager
async def world(zone: Zone, port: int, **settings: Any) -> AsyncIterator[Egress]:
    """An egress whose DNS is the zone and whose MX all listen on one port."""
    async with DnsStub(zone) as stub:
        dns = ResolverSettings((("127.0.0.1", stub.port),), timeout_seconds=0.3, rounds=1)
        options = {"allowed_networks": LOOPBACK, **settings}
        yield Egress(
            EgressSettings("relay.example", dns=dns, port=port, timers=TIMERS, **options),
            dice=random.Random(1),
            clock=time.monotonic,
        )


async def reach(egress: Egress, domain: str = "dest.example", pool: str | None = None) -> Connection | Deferred | Bounced:
    routing = await egress.route(domain, pool)
    if isinstance(routing, Deferred | Bounced):
        return routing
    assert egress.known_route(domain, pool) is not None
    return await egress.connect(routing)


async def deliver(opened: Connection | Deferred | Bounced, **changes: Any) -> Outcome:
    if not isinstance(opened, Connection):
        return opened
    outcome = (await opened.deliver(letter(**changes)))[0]
    await opened.quit()
    return outcome


@asynccontextmanager
async def two_sinks(first: dict[str, Any], second: dict[str, Any]) -> AsyncIterator[tuple[Sink, Sink]]:
    async with Sink(first, host="127.0.0.2") as one, Sink(second, host="127.0.0.3", port=one.port) as two:
        yield one, two


# -- hops and addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.row("34", "35")
@pytest.mark.parametrize(
    "first",
    [
        {"banner": "554 no"},
        {"banner": "421 busy"},
        {"ehlo": "451 no"},
        {"ehlo": "500 no", "helo": "500 no"},
        {"banner": {"end": "close"}},
    ],
)
async def test_trouble_at_the_opening_makes_us_try_the_next_host(first: dict[str, Any]) -> None:
    async with two_sinks(first, {}) as (one, two), world(MX, one.port) as egress:
        outcome = await deliver(await reach(egress))
        assert isinstance(outcome, Delivered)
        assert (outcome.peer.host, outcome.peer.address) == ("mx2.dest.example", "127.0.0.3")
        assert outcome.peer.site == "(mx1|mx2).dest.example"
        assert (one.sessions, two.sessions) == (1, 1)


@pytest.mark.row("34", "35")
async def test_a_no_after_the_opening_does_not_go_to_the_next_host() -> None:
    async with two_sinks({"mail": "550 5.7.1 no"}, {}) as (one, two), world(MX, one.port) as egress:
        assert isinstance(await deliver(await reach(egress)), Bounced)
        assert two.sessions == 0


@pytest.mark.row("30")
async def test_hosts_that_do_not_resolve_are_passed_over() -> None:
    zone = MX | {("mx1.dest.example", "A"): "NXDOMAIN"}
    async with Sink(host="127.0.0.3") as sink, world(zone, sink.port) as egress:
        assert isinstance(await deliver(await reach(egress)), Delivered)
    nowhere = zone | {("mx2.dest.example", "A"): "NXDOMAIN"}
    async with world(nowhere, 1) as egress:
        deferred(await deliver(await reach(egress)), "4.4.4")
    unsure = zone | {("mx2.dest.example", "A"): "SERVFAIL"}
    async with world(unsure, 1) as egress:
        deferred(await deliver(await reach(egress)), "4.4.3")


@pytest.mark.row("K7")
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1"])
async def test_private_addresses_bounce_without_a_connection(address: str) -> None:
    zone: Zone = {("dest.example", "A"): [address], ("dest.example", "AAAA"): ["::1", "::ffff:127.0.0.1"]}
    async with Sink() as sink, world(zone, sink.port, allowed_networks=()) as egress:
        outcome = await deliver(await reach(egress))
        assert isinstance(outcome, Bounced)
        assert outcome.enhanced == "5.4.4"
        assert sink.sessions == 0


@pytest.mark.row("K7")
async def test_our_own_address_bounces_as_a_loop() -> None:
    zone: Zone = {("dest.example", "A"): ["198.41.0.4"]}
    async with world(zone, 1, allowed_networks=(), own_addresses=("198.41.0.4",)) as egress:
        outcome = await deliver(await reach(egress))
        assert isinstance(outcome, Bounced)
        assert outcome.enhanced == "5.4.6"


@pytest.mark.row("K7")
async def test_a_private_host_among_others_is_passed_over() -> None:
    zone = MX | {("mx1.dest.example", "A"): ["10.0.0.1"]}
    async with Sink(host="127.0.0.3") as sink, world(zone, sink.port) as egress:
        assert isinstance(await deliver(await reach(egress)), Delivered)


@pytest.mark.row("31")
async def test_ipv6_that_does_not_work_falls_back_to_ipv4_and_is_remembered() -> None:
    zone: Zone = {("dest.example", "A"): ["127.0.0.1"], ("dest.example", "AAAA"): ["2a00:dead::1"]}
    async with Sink() as sink, world(zone, sink.port) as egress:
        for _ in range(2):
            started = time.monotonic()
            outcome = await deliver(await reach(egress))
            assert isinstance(outcome, Delivered)
            assert outcome.peer.address == "127.0.0.1"
            assert time.monotonic() - started < 10 * TIMERS.connect_v6


@pytest.mark.row("31")
async def test_only_unreachable_ipv6_defers() -> None:
    async with world({("dest.example", "AAAA"): ["2a00:dead::1"]}, 25) as egress:
        deferred(await deliver(await reach(egress)), "4.4.1")


async def test_at_least_two_addresses_and_not_too_many_are_tried() -> None:
    zone: Zone = {("dest.example", "A"): [f"127.0.1.{at}" for at in range(1, 9)]}
    async with Sink({"banner": "421 no"}, host="0.0.0.0") as sink, world(zone, sink.port) as egress:
        deferred(await deliver(await reach(egress)))
        assert sink.sessions == 6


async def test_sources_bind_and_say_their_own_name() -> None:
    sources = (SourceSettings("one", "127.0.0.9", "one.example", "bulk"), SourceSettings("two", "::1", None, "six"))
    async with Sink() as sink, world({("dest.example", "A"): ["127.0.0.1"]}, sink.port, sources=sources) as egress:
        outcome = await deliver(await reach(egress, pool="bulk"))
        assert isinstance(outcome, Delivered)
        assert outcome.peer.source == "one"
        assert sink.messages[0]["helo"] == "one.example"
        deferred(await deliver(await reach(egress, pool="six")), "4.4.4")
        deferred(await deliver(await reach(egress, pool="unknown")), "4.3.5")
        default = await reach(egress)
        assert isinstance(default, Connection)
        assert default.peer.source == "default"
        await default.quit()


def test_the_most_specific_route_wins() -> None:
    routes = tuple(RouteSettings(match, "h") for match in ("*", "*.example", "*.dest.example", "dest.example"))
    for domain, match in (
        ("dest.example", "dest.example"),
        ("a.dest.example", "*.dest.example"),
        ("other.example", "*.example"),
        ("else.test", "*"),
    ):
        route = match_route(routes, domain)
        assert route is not None
        assert route.match == match
    assert match_route(routes[1:], "else.test") is None


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("h.example", Hop("h.example", 25)),
        ("h.example:2525", Hop("h.example", 2525)),
        ("[::1]", Hop("::1", 25)),
        ("[::1]:26", Hop("::1", 26)),
        ("::1", Hop("::1", 25)),
    ],
)
def test_next_hops_are_read(text: str, hop: Hop) -> None:
    assert parse_next_hop(text, 25) == hop


@pytest.mark.parametrize("text", ["", ":25", "h:", "h:x", "h:0", "h:65536", "[::1", "[::1]x", "[]:25", "[::1]:"])
def test_what_is_no_next_hop_is_said_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="next hop"):
        parse_next_hop(text, 25)


async def test_a_route_by_name_is_resolved_as_the_machine_does() -> None:
    async with Sink() as sink:
        settings = EgressSettings("relay.example", (RouteSettings("*", f"localhost:{sink.port}", TlsMode.NONE),), timers=TIMERS)
        egress = Egress(settings, dice=random.Random(1), clock=time.monotonic)
        assert isinstance(await deliver(await reach(egress)), Delivered)


# -- TLS -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def wrong_pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("wrong"), ("elsewhere.example",))


def tls_script(pem: tuple[Path, Path, Path], **more: Any) -> dict[str, Any]:
    return {"certificate": str(pem[1]), "key": str(pem[2]), **more}


@pytest.mark.row("43")
async def test_opportunistic_tls_takes_any_certificate(wrong_pem: tuple[Path, Path, Path]) -> None:
    async with Sink(tls_script(wrong_pem)) as sink:
        outcome = await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC))
        assert isinstance(outcome, Delivered)
        assert outcome.peer.tls.startswith("TLSv1.3 ")
        assert outcome.peer.tls.endswith(" unverified")
        assert sink.messages[0]["tls"]
        assert sink.commands[:3] == ["EHLO relay.example", "STARTTLS", "EHLO relay.example"]


async def test_required_tls_is_verified(pem: tuple[Path, Path, Path]) -> None:
    async with Sink(tls_script(pem)) as sink:
        outcome = await deliver(await open_to(sink, tls=TlsMode.REQUIRED, ca_file=pem[0]))
        assert isinstance(outcome, Delivered)
        assert outcome.peer.tls.endswith(" verified")


@pytest.mark.row("43")
async def test_required_tls_defers_with_a_bad_certificate_unless_the_route_does_not_verify(
    pem: tuple[Path, Path, Path], wrong_pem: tuple[Path, Path, Path]
) -> None:
    async with Sink(tls_script(wrong_pem)) as sink:
        for authority in (wrong_pem[0], pem[0], None, Path("/nonexistent.pem")):
            deferred(await deliver(await open_to(sink, tls=TlsMode.REQUIRED, ca_file=authority)), "4.7.5")
        assert sink.messages == []
        outcome = await deliver(await open_to(sink, tls=TlsMode.REQUIRED, verify=False))
        assert isinstance(outcome, Delivered)
        assert outcome.peer.tls.endswith(" unverified")


@pytest.mark.row("42")
@pytest.mark.parametrize("script", [{"handshake": "fail"}, {"starttls": "454 4.7.0 not now"}, {"starttls": "500 what"}])
async def test_opportunistic_goes_on_in_clear_when_tls_fails_and_required_defers(script: dict[str, Any]) -> None:
    async with Sink(script) as sink:
        outcome = await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC))
        assert isinstance(outcome, Delivered)
        assert outcome.peer.tls == ""
        deferred(await deliver(await open_to(sink, tls=TlsMode.REQUIRED)), "4.7.5")
        assert len(sink.messages) == 1


@pytest.mark.row("42")
async def test_stripped_starttls_defers_where_tls_is_required() -> None:
    async with Sink() as sink:
        deferred(await deliver(await open_to(sink, tls=TlsMode.REQUIRED)), "4.7.5")
        assert sink.messages == []


@pytest.mark.row("K2")
@pytest.mark.parametrize("inject", ["250 injected\r\n", "250-SIZE 1\r\n250 ok\r\n", "2", "\r\n"])
@pytest.mark.parametrize("tls", [TlsMode.OPPORTUNISTIC, TlsMode.REQUIRED])
async def test_octets_with_the_220_to_starttls_end_the_session(inject: str, tls: TlsMode, pem: tuple[Path, Path, Path]) -> None:
    async with Sink(tls_script(pem, inject=inject)) as sink:
        deferred(await deliver(await open_to(sink, tls=tls)))
        assert sink.messages == []


@pytest.mark.row("K2")
async def test_a_reply_before_starttls_is_asked_ends_the_session(pem: tuple[Path, Path, Path]) -> None:
    script = tls_script(pem, ehlo={"raw": "250-sink\r\n250 STARTTLS\r\n220 go ahead\r\n"})
    async with Sink(script) as sink:
        deferred(await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC)), "4.5.0")


async def test_what_is_offered_before_tls_is_forgotten_inside(pem: tuple[Path, Path, Path]) -> None:
    async with Sink(tls_script(pem, words=["SIZE 1"], tls_words=["PIPELINING"])) as sink:
        assert isinstance(await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC)), Delivered)


async def test_requiretls_needs_verified_tls_and_the_offer(
    pem: tuple[Path, Path, Path], wrong_pem: tuple[Path, Path, Path]
) -> None:
    words = ["PIPELINING", "REQUIRETLS"]
    async with Sink(tls_script(pem, tls_words=words)) as sink:
        outcome = await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC, ca_file=pem[0]), require_tls=True)
        assert isinstance(outcome, Delivered)
        assert outcome.peer.tls.endswith(" verified")
        assert any(command.endswith(" REQUIRETLS") for command in sink.commands)
    async with Sink(tls_script(wrong_pem, tls_words=words)) as sink:
        deferred(await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC), require_tls=True), "4.7.5")
    for script in (tls_script(pem), {}):
        async with Sink(script) as sink:
            outcome = await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC, ca_file=pem[0]), require_tls=True)
            assert isinstance(outcome, Bounced)
            assert outcome.enhanced == "5.7.30"
            assert sink.messages == []
    async with Sink() as sink:
        assert isinstance(await deliver(await open_to(sink, trusted=True), require_tls=True), Delivered)


# -- AUTH ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("s3cret-of-the-smarthost\n")
    return file


@pytest.mark.row("K9")
async def test_a_password_is_never_sent_over_unvalidated_tls(
    pem: tuple[Path, Path, Path], wrong_pem: tuple[Path, Path, Path], password: Path
) -> None:
    words = ["AUTH PLAIN LOGIN"]
    auth: dict[str, Any] = {"username": "u", "password_file": password}
    async with Sink(tls_script(wrong_pem, words=words, tls_words=words)) as sink:
        for tls in (TlsMode.OPPORTUNISTIC, TlsMode.REQUIRED):
            deferred(await deliver(await open_to(sink, tls=tls, ca_file=pem[0], **auth)), "4.7.5")
        deferred(await deliver(await open_to(sink, tls=TlsMode.REQUIRED, verify=False, **auth)), "4.7.0")
        assert not any(command.startswith("AUTH") for command in sink.commands)
    async with Sink({"words": words}) as sink:
        deferred(await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC, **auth)), "4.7.5")
        assert not any(command.startswith("AUTH") for command in sink.commands)


async def test_auth_over_validated_tls_or_on_this_machine(pem: tuple[Path, Path, Path], password: Path) -> None:
    auth: dict[str, Any] = {"username": "u", "password_file": password}
    async with Sink(tls_script(pem, tls_words=["AUTH PLAIN"])) as sink:
        outcome = await deliver(await open_to(sink, tls=TlsMode.OPPORTUNISTIC, ca_file=pem[0], **auth))
        assert isinstance(outcome, Delivered)
        assert sum(command.startswith("AUTH PLAIN ") for command in sink.commands) == 1
    async with Sink({"words": ["AUTH LOGIN"], "auth": ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok"]}) as sink:
        assert isinstance(await deliver(await open_to(sink, **auth)), Delivered)


@pytest.mark.parametrize(
    ("script", "enhanced"),
    [
        ({"words": ["AUTH PLAIN"], "auth": "535 5.7.8 no"}, "4.7.8"),
        ({"words": ["AUTH PLAIN"], "auth": ["334 more", "501 5.5.2 cancelled"]}, "4.5.2"),
        ({"words": ["AUTH GSSAPI"]}, "4.7.0"),
        ({"words": []}, "4.7.0"),
    ],
)
async def test_failed_auth_defers_and_shows_no_secret(script: dict[str, Any], enhanced: str, password: Path) -> None:
    async with Sink(script) as sink:
        outcome = deferred(await deliver(await open_to(sink, username="u", password_file=password)), enhanced)
        assert "s3cret" not in outcome.transcript
        assert "AUTH PLAIN" not in outcome.transcript.replace("250 AUTH PLAIN", "")


async def test_a_missing_password_file_defers(tmp_path: Path) -> None:
    async with Sink({"words": ["AUTH PLAIN"]}) as sink:
        deferred(await deliver(await open_to(sink, username="u", password_file=tmp_path / "none")), "4.3.5")


# -- real servers ----------------------------------------------------------------------------------------------------------


def _route(port: int) -> Egress:
    settings = EgressSettings(
        "relay.example",
        (RouteSettings("*", f"127.0.0.1:{port}", TlsMode.OPPORTUNISTIC),),
        timers=replace(TIMERS, banner=5, command=5, data=5, end=5),
    )
    return Egress(settings, dice=random.Random(1), clock=time.monotonic)


async def _send_three(egress: Egress) -> list[Outcome]:
    connection = await reach(egress)
    assert isinstance(connection, Connection), connection
    outcomes = [
        outcome for _ in range(3) for outcome in await connection.deliver(replace(LETTER, recipients=letter(3).recipients))
    ]
    await connection.quit()
    return outcomes


@contextmanager
def smtp_sink() -> Iterator[int]:
    port = free_port()
    command = ["/usr/sbin/smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "10"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


async def test_smtp_sink_of_postfix_takes_our_mail() -> None:
    if not Path("/usr/sbin/smtp-sink").exists():
        pytest.skip("Postfix's smtp-sink is not installed")
    with smtp_sink() as port:
        assert all(isinstance(outcome, Delivered) for outcome in await _send_three(_route(port)))


async def test_aiosmtpd_takes_our_mail() -> None:
    port = free_port()
    controller = Controller(AiosmtpdSink(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        assert all(isinstance(outcome, Delivered) for outcome in await _send_three(_route(port)))
    finally:
        controller.stop()
