"""What name servers do to mail in a relay, each ending in the invariant checker: rows 26, 27, 28, 29, 30, 31 and 33.

One relay with two name servers. What must wait is sent first of all, so that the waiting of one test is that of all.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from tests.system.dns_stub import Zone
from tests.system.sites import Letter, Sites


@dataclass(frozen=True)
class Wrong:
    """What the zone says of a domain until it is mended, the status of each deferral, and hosts that get addresses then."""

    zone: Zone
    status: str
    hosts: tuple[str, ...] = ()


def mx(domain: str, *hosts: str) -> Zone:
    return {(domain, "MX"): [f"{number}0 {host}." for number, host in enumerate(hosts, 1)]}


SICK: dict[str, Wrong] = {
    "mx-servfail.row26.example": Wrong({("mx-servfail.row26.example", "MX"): "SERVFAIL"}, "4.4.3"),
    "mx-refused.row26.example": Wrong({("mx-refused.row26.example", "MX"): "REFUSED"}, "4.4.3"),
    "mx-timeout.row26.example": Wrong({("mx-timeout.row26.example", "MX"): "TIMEOUT"}, "4.4.3"),
    "mx-garbage.row26.example": Wrong({("mx-garbage.row26.example", "MX"): "GARBAGE"}, "4.4.3"),
    "host-servfail.row26.example": Wrong({("mx1.host-servfail.row26.example", "A"): "SERVFAIL"}, "4.4.3"),
    "malformed-null.row29.example": Wrong({("malformed-null.row29.example", "MX"): ["10 ."]}, "4.4.4"),
    "numbers.row30.example": Wrong(mx("numbers.row30.example", "127.0.0.1", "192.0.2.1"), "4.4.4"),
    "gone.row30.example": Wrong(mx("gone.row30.example", "gone1.example", "gone2.example"), "4.4.4", ("gone2.example",)),
    "loop.row30.example": Wrong(
        mx("loop.row30.example", "a.loop.example")
        | {("a.loop.example", "CNAME"): ["b.loop.example."], ("b.loop.example", "CNAME"): ["a.loop.example."]},
        "4.4.3",
        ("a.loop.example",),
    ),
    "only-v6.row31.example": Wrong(
        mx("only-v6.row31.example", "six.example") | {("six.example", "AAAA"): ["2a00:dead::1"]}, "4.4.1", ("six.example",)
    ),
}
Sick = dict[str, tuple[Letter, str]]  # by domain: what was sent, and the address that the domain ought to have had


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    relay: dict[str, object] = {"timeout_scale": 0.01, "allow_private_networks": ["127.0.0.0/8", "::1/128"]}
    made = Sites(tmp_path_factory.mktemp("dns"), relay, name_servers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def sick(sites: Sites) -> Iterator[Sick]:
    """Letters to the domains that only wait, sent before everything else. In the end everything is mended and judged."""
    addresses = {domain: sites.site(domain) for domain in SICK}
    for wrong in SICK.values():
        sites.zone_says(wrong.zone)
    sent = {domain: (sites.send(f"a@{domain}"), address) for domain, address in addresses.items()}
    quick = {domain: letter for domain, letter in sent.items() if ".row26." not in domain}
    judge_waiting(sites, quick)
    for domain in quick:
        mend(sites, sent, domain)  # heard of when the answers of before are ten seconds old
    yield sent
    for domain in SICK:
        mend(sites, sent, domain)
    counts = sites.check_all()
    assert counts["events_delivered"] >= len(SICK)
    assert counts["duplicates"] == 0


@pytest.fixture(scope="module", autouse=True)
def unheard(sites: Sites, sick: Sick) -> Letter:
    """A letter whose domain the first name server never answers for, sent early since it waits for seconds."""
    sites.site("unheard.row33.example")
    sites.zone_says({("unheard.row33.example", "MX"): "TIMEOUT"}, 0)
    return sites.send("a@unheard.row33.example")


def judge_waiting(sites: Sites, sick: Sick) -> None:
    """Judge while all is as wrong as it was: everything is queued, only deferred, and with its own status."""
    letters = [letter for letter, _ in sick.values()]
    sites.wait_deferred(*letters)
    for domain, (letter, _) in sick.items():
        statuses = {(event["kind"], event["enhanced"]) for event in sites.events(letter)}
        assert (domain, statuses) == (domain, {("deferred", SICK[domain].status)})
    counts = sites.check(*letters)
    assert (counts["queued_still"], counts["events_bounced"], counts["sink_messages"]) == (len(letters), 0, 0)


def judge_gone(sites: Sites, sick: Sick) -> None:
    """Judge after all was mended: everything was delivered, once."""
    letters = [letter for letter, _ in sick.values()]
    sites.wait_final(*letters)
    counts = sites.check(*letters)
    assert (counts["events_delivered"], counts["events_bounced"], counts["queued_still"]) == (len(letters), 0, 0)
    assert (counts["sink_messages"], counts["duplicates"]) == (len(letters), 0)


def of_row(sick: Sick, row: str) -> Sick:
    return {domain: letter for domain, letter in sick.items() if f".{row}." in domain}


def mend(sites: Sites, sick: Sick, domain: str) -> None:
    address = sick[domain][1]
    sites.zone_says(mx(domain, f"mx1.{domain}"))
    sites.zone_says({(host, "A"): [address] for host in (f"mx1.{domain}", *SICK[domain].hosts)})


@pytest.mark.row("31")
def test_v6_that_swallows_everything_costs_moments_and_only_once(sites: Sites, sick: Sick) -> None:
    """A listener on ::1 whose queue is full answers no SYN: a true black hole."""
    with ExitStack() as stack:
        hole, *others = [stack.enter_context(socket.socket(socket.AF_INET6)) for _ in range(4)]
        hole.bind(("::1", sites.port))
        hole.listen(0)
        for one in others:
            one.settimeout(0.2)
            with suppress(TimeoutError):
                one.connect(("::1", sites.port))
        with pytest.raises(TimeoutError), socket.create_connection(("::1", sites.port), 0.2):
            pass  # it is one
        for domain in ("one.row31.example", "two.row31.example"):
            sites.site(domain)
            sites.zone_says({(f"mx1.{domain}", "AAAA"): ["::1"]})
        letters = [sites.send("a@one.row31.example")]
        sites.wait_final(*letters)
        letters.append(sites.send("a@two.row31.example"))
        sites.wait_final(*letters)
        assert [sites.kinds(letter) for letter in letters] == [["delivered"]] * 2
        assert all(sites.events(letter)[0]["latency_seconds"] < 10 for letter in letters)  # far below a TCP timeout of minutes
        counts = sites.check(*letters)
    assert (counts["events_delivered"], counts["duplicates"], counts["sink_messages"]) == (2, 0, 2)


@pytest.mark.row("27")
def test_a_name_that_is_not_there_bounces_and_one_without_hosts_too(sites: Sites, sick: Sick) -> None:
    sites.zone_says({("barren.row27.example", "TXT"): ["no mail"]})
    nowhere, barren = sites.send("a@nowhere.row27.example", "b@nowhere.row27.example"), sites.send("a@barren.row27.example")
    sites.wait_final(nowhere, barren)
    for letter, mailbox, status in (
        (nowhere, "a@nowhere.row27.example", "5.1.2"),
        (nowhere, "b@nowhere.row27.example", "5.1.2"),
        (barren, "a@barren.row27.example", "5.4.4"),
    ):
        (event,) = sites.events(letter, mailbox)
        assert (event["kind"], event["enhanced"]) == ("bounced", status)
    for letter in (nowhere, barren):
        assert b"Action: failed" in sites.wait_reports(letter)[0]
    counts = sites.check(nowhere, barren)
    assert (counts["events_bounced"], counts["sink_messages"]) == (3, 0)


@pytest.mark.row("28")
def test_without_mx_the_domain_is_its_own_host(sites: Sites, sick: Sick) -> None:
    address = sites.host()
    sites.zone_says({("implicit.row28.example", "A"): [address]})
    letter = sites.send("a@implicit.row28.example", "b@implicit.row28.example")
    sites.wait_final(letter)
    assert sites.events(letter)[0]["host"] == "implicit.row28.example"
    counts = sites.check(letter)
    assert (counts["events_delivered"], counts["sink_messages"], counts["duplicates"]) == (2, 1, 0)


@pytest.mark.row("29")
def test_null_mx_bounces_at_once_and_is_passed_over_among_others(sites: Sites, sick: Sick) -> None:
    sites.zone_says({("null.row29.example", "MX"): ["0 ."], ("null.row29.example", "A"): [sites.host()]})
    sites.site("mixed.row29.example")
    sites.zone_says({("mixed.row29.example", "MX"): ["0 .", "10 mx1.mixed.row29.example."]})
    null, mixed = sites.send("a@null.row29.example"), sites.send("a@mixed.row29.example")
    sites.wait_final(null, mixed)
    (event,) = sites.events(null)
    assert (event["kind"], event["enhanced"]) == ("bounced", "5.1.10")
    assert sites.kinds(mixed) == ["delivered"]
    assert b"556" in sites.wait_reports(null)[0]
    counts = sites.check(null, mixed)
    assert (counts["events_bounced"], counts["events_delivered"], counts["sink_messages"]) == (1, 1, 1)


@pytest.mark.row("30")
def test_aliases_are_followed_and_bad_hosts_passed_over(sites: Sites, sick: Sick) -> None:
    zones: dict[str, Zone] = {
        "domain-alias": {("domain-alias.row30.example", "CNAME"): ["real.row30.example."]},
        "host-alias": {
            ("host-alias.row30.example", "MX"): ["10 alias.row30.example."],
            ("alias.row30.example", "CNAME"): ["mx1.real.row30.example."],
        },
        "number-first": {("number-first.row30.example", "MX"): ["5 192.0.2.1.", "10 mx1.real.row30.example."]},
        "gone-first": {("gone-first.row30.example", "MX"): ["5 gone.row30.example.", "10 mx1.real.row30.example."]},
    }
    sites.site("real.row30.example")
    for zone in zones.values():
        sites.zone_says(zone)
    letters = [sites.send(f"a@{name}.row30.example") for name in zones]
    sites.wait_final(*letters)
    assert [sites.kinds(letter) for letter in letters] == [["delivered"]] * len(zones)
    counts = sites.check(*letters)
    assert (counts["events_delivered"], counts["sink_messages"], counts["duplicates"]) == (4, 4, 0)


@pytest.mark.row("30")
def test_hosts_of_equal_preference_share_the_mail(sites: Sites, sick: Sick) -> None:
    left, right = sites.host(), sites.host()
    domains = [f"d{number}.equal.row30.example" for number in range(20)]
    for domain in domains:
        sites.zone_says(
            {
                (domain, "MX"): [f"10 l.{domain}.", f"10 r.{domain}."],
                (f"l.{domain}", "A"): [left],
                (f"r.{domain}", "A"): [right],
            }
        )
    letters = [sites.send(f"a@{domain}") for domain in domains]
    sites.wait_final(*letters)
    counts = sites.check(*letters)
    assert (counts["events_delivered"], counts["sink_messages"], counts["duplicates"]) == (20, 20, 0)
    assert sites.sinks[left].messages  # all on one side: once in 2**19 runs
    assert sites.sinks[right].messages


@pytest.mark.row("33")
@pytest.mark.parametrize("fault", ["truncated", "spoofed", "first server sick"])
def test_answers_that_are_cut_false_or_missing_do_not_mislead_mail(sites: Sites, sick: Sick, fault: str) -> None:
    domain = f"{fault.replace(' ', '-')}.row33.example"
    address = sites.site(domain)
    host = f"mx1.{domain}"
    match fault:
        case "truncated":
            sites.zone_says({(domain, "MX"): ("TRUNCATE", [f"10 {host}."]), (host, "A"): ("TRUNCATE", [address])})
        case "spoofed":
            sites.zone_says({(domain, "MX"): ("SPOOF", [f"10 {host}."]), (host, "A"): ("SPOOF", [address])})
        case _:
            sites.zone_says({(domain, "MX"): "SERVFAIL", (host, "A"): "REFUSED"}, 0)
    letter = sites.send(f"a@{domain}")
    sites.wait_final(letter)
    assert sites.kinds(letter) == ["delivered"]
    if fault == "truncated":
        assert {transport for transport, name, _ in sites.name_servers[0].asked if name == domain} == {"udp", "tcp"}
    if fault == "first server sick":
        assert any(name == domain for _, name, _ in sites.name_servers[1].asked)
    counts = sites.check(letter)
    assert (counts["events_delivered"], counts["sink_messages"], counts["duplicates"]) == (1, 1, 0)


@pytest.mark.row("33")
def test_the_second_name_server_answers_for_a_first_that_is_dead(sites: Sites, unheard: Letter) -> None:
    sites.wait_final(unheard)
    assert sites.kinds(unheard) == ["delivered"]
    assert any(name == "unheard.row33.example" for _, name, _ in sites.name_servers[1].asked)
    counts = sites.check(unheard)
    assert (counts["events_delivered"], counts["sink_messages"], counts["duplicates"]) == (1, 1, 0)


@pytest.mark.row("31")
def test_mail_for_v6_only_waits_without_a_way_and_goes_when_there_is_one(sites: Sites, sick: Sick) -> None:
    judge_gone(sites, of_row(sick, "row31"))


@pytest.mark.row("29")
def test_mail_for_a_malformed_null_mx_waits_and_goes_when_it_is_mended(sites: Sites, sick: Sick) -> None:
    judge_gone(sites, of_row(sick, "row29"))


@pytest.mark.row("30")
def test_mail_waits_while_no_host_is_of_use_and_goes_when_one_is(sites: Sites, sick: Sick) -> None:
    judge_gone(sites, of_row(sick, "row30"))


@pytest.mark.row("26")
def test_mail_waits_while_name_servers_fail_and_goes_when_they_are_back(sites: Sites, sick: Sick) -> None:
    failing = of_row(sick, "row26")
    judge_waiting(sites, failing)
    for domain in failing:
        mend(sites, sick, domain)
    judge_gone(sites, failing)
