"""What sites say about pace, in a whole relay: greylisting, limits of recipients and of rate, 421, words about one account.

Row 41, and what `postbud queue explain` shows meanwhile. Next hops and retries as in `test_faults_peers`; everything ends in
the invariant checker. Crowds of mail and of sites are in `test_crowds`, limits across workers in `test_shared_limits`.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import wait_until
from tests.system.sites import Letter, Sites

OWN_RULES = """
[[site]]
name = "one at a time"
match = ["mx1.rate.row41.example", "mx1.middle.storm.example"]
connections = 1

[[site]]
match = ["mx1.seldom.example"]
messages_per_second = 0.15
"""
COMPLAINTS = "451 4.7.1 The sender acme.example deferred due to complaints, see https://help.example"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("shaping")
    (folder / "own.toml").write_text(OWN_RULES)
    made = Sites(folder, {"retry_first_seconds": 1, "retry_max_seconds": 3, "shaping_file": "own.toml"})
    try:
        made.site("beta.example")
        made.start()
        yield made
        counts = made.check_all()
        assert counts["duplicates"] == 0
    finally:
        made.close()


def check(sites: Sites, letters: list[Letter], **wanted: int) -> None:
    counts = sites.check(*letters)
    assert {name: counts[name] for name in wanted} == wanted, dict(counts)


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_explained(sites: Sites, domain: str, *words: str) -> str:
    def said() -> str:
        text = sites.explain(domain)
        return text if all(word in text for word in words) else ""

    return wait_until(said, f"queue explain {domain} says {words}", 20, every=0.1)


# -- row 41 --------------------------------------------------------------------------------------------------------------


@pytest.mark.row("41")
def test_greylisting_costs_each_recipient_one_retry_and_slows_nobody(sites: Sites) -> None:
    sites.site("grey.row41.example", {"greylist": "451 4.7.1 Greylisted, please try again later"})
    sites.site("beside.row41.example")
    letters = [sites.send(f"a{n}@grey.row41.example", f"b{n}@grey.row41.example") for n in range(10)]
    others = [sites.send(f"a{n}@beside.row41.example") for n in range(10)]
    sites.wait_final(*others)
    shown = sites.explain("grey.row41.example")
    assert "paused" not in shown
    assert "messages a second" not in shown  # greylisting is about the message, not about our pace
    sites.wait_final(*letters)
    assert {tuple(sites.kinds(one, to)) for one in letters for to in one.recipients} == {("deferred", "delivered")}
    check(sites, letters + others, events_delivered=30, events_deferred=20, duplicates=0, queued_still=0)


@pytest.mark.row("41")
def test_too_many_recipients_are_split_as_the_site_wants_within_one_attempt(sites: Sites) -> None:
    sites.site("parts.row41.example", {"recipients_limit": [3, "452 4.5.3 Too many recipients"]})
    letters = [sites.send(*(f"r{n}-{part}@parts.row41.example" for part in range(10))) for n in range(5)]
    sites.wait_final(*letters)
    sizes = [len(message["recipients"]) for message in sites.sink_of("parts.row41.example").messages]
    assert sorted(sizes) == [1] * 5 + [3] * 15
    assert "messages a second" not in sites.explain("parts.row41.example")
    check(sites, letters, events_delivered=50, events_deferred=0, sink_messages=20, duplicates=0)


@pytest.mark.row("41")
def test_a_rate_limit_said_in_words_is_found_and_kept_in_the_order_of_the_account(sites: Sites) -> None:
    domain = "rate.row41.example"
    sites.site(domain, {"mails_per_second": [5, "451 4.7.1 Our rate limit for your address is exceeded, slow down"]})
    sites.site("unhurt.row41.example")
    letters = [sites.send(f"a{n}@{domain}") for n in range(40)]
    shown = wait_explained(sites, domain, "messages a second", "rate limit for your address")
    assert "1 connections of" in shown or "0 connections of" in shown
    others = [sites.send(f"a{n}@unhurt.row41.example") for n in range(20)]
    sites.wait_final(*others)
    assert sites.latencies(*others)[-1] < 10.0
    sites.wait_final(*letters, seconds=60)
    sink = sites.sink_of(domain)
    refused = sum(line.startswith("MAIL") for line in sink.commands) - len(sink.messages)
    print(f"rate limit 5/s: {len(sink.messages)} taken, {refused} refused")
    assert 1 <= refused <= len(letters) // 2
    at_once = [letter.test_id for letter in letters if sites.kinds(letter) == ["delivered"]]
    arrived = [receipt["test_id"] for receipt in sites.received() if receipt["test_id"] in set(at_once)]
    assert arrived == at_once
    check(sites, letters + others, events_delivered=60, duplicates=0, queued_still=0)


def test_a_site_that_takes_a_message_in_some_seconds_costs_no_time_in_between(sites: Sites) -> None:
    sites.site("seldom.example")
    letters = [sites.send(f"a{n}@seldom.example") for n in range(3)]
    (worker,) = sites.relay.workers()
    began, before = time.monotonic(), cpu_seconds(worker)
    sites.wait_final(*letters, seconds=60)
    passed, used = time.monotonic() - began, cpu_seconds(worker) - before
    print(f"3 messages in {passed:.1f} s, {used:.2f} s of them computing")
    first, *later = [message["at"] for message in sites.sink_of("seldom.example").messages]
    assert later[-1] - first > 2 / 0.15 - 0.5
    assert used < passed / 2
    check(sites, letters, events_delivered=3, events_deferred=0, duplicates=0, queued_still=0)


# -- words about one account -----------------------------------------------------------------------------------------------


def test_an_account_that_one_site_does_not_want_waits_there_and_only_there(sites: Sites) -> None:
    domain = "complains.example"
    sites.site(domain, {"senders": {"acme.example": COMPLAINTS}})
    sites.site("content.example")
    sink = sites.sink_of(domain)
    unwanted = [sites.send(f"a0@{domain}")]
    sites.wait_deferred(*unwanted)
    shown = wait_explained(sites, domain, "acct_acme waits", "deferred due to complaints")
    assert "paused" not in shown
    unwanted += [sites.send(f"a{n}@{domain}") for n in range(1, 10)]
    elsewhere = [sites.send(f"a{n}@content.example") for n in range(5)]
    others = [sites.send(f"b{n}@{domain}", username="beta-1") for n in range(10)]
    sites.wait_final(*elsewhere, *others)
    assert {tuple(sites.kinds(letter)) for letter in elsewhere + others} == {("delivered",)}
    sites.wait_deferred(*unwanted)
    refused = sum(line.startswith("MAIL") and "@acme.example" in line for line in sink.commands)
    assert refused < len(unwanted)  # the others were recorded without asking the site again
    check(sites, unwanted, queued_still=10, events_delivered=0, sink_messages=0)
    sink.script = {}
    sites.wait_final(*unwanted, seconds=60)
    check(sites, unwanted + elsewhere + others, events_delivered=25, duplicates=0, queued_still=0)


# -- 421 ---------------------------------------------------------------------------------------------------------------------


def test_a_storm_of_421_at_the_banner_pauses_the_lane_and_keeps_its_queue(sites: Sites) -> None:
    domain = "banner.storm.example"
    sites.site(domain, {"banner": "421 4.7.0 Too many messages from your address, slow down"})
    letters = [sites.send(f"a{n}@{domain}") for n in range(30)]
    wait_explained(sites, domain, "paused for", "messages a second")
    sites.wait_deferred(letters[0])
    counts = sites.check(*letters)
    assert (counts["queued_still"], counts["events_delivered"], counts["events_bounced"]) == (30, 0, 0)
    assert sites.sink_of(domain).sessions < len(letters)
    sites.mend(domain)
    sites.wait_final(*letters, seconds=90)
    check(sites, letters, events_delivered=30, events_bounced=0, duplicates=0, queued_still=0)


def test_a_storm_of_421_in_the_middle_costs_time_only(sites: Sites) -> None:
    domain = "middle.storm.example"
    storm = ["250 ok"] * 5 + ["421 4.7.0 slow down"] * 2
    sites.site(domain, {"mail": storm * 2 + ["250 ok"]})
    letters = [sites.send(f"a{n}@{domain}") for n in range(30)]
    sites.wait_final(*letters, seconds=90)
    check(sites, letters, events_delivered=30, events_bounced=0, sink_messages=30, duplicates=0, queued_still=0)


# -- dead ----------------------------------------------------------------------------------------------------------------


def test_mail_for_a_dead_site_is_recorded_without_a_connection_each_and_goes_when_it_is_back(sites: Sites) -> None:
    domain = "dead.example"
    sites.site(domain, {"banner": {"end": "reset"}})
    letters = [sites.send(f"a{n}@{domain}") for n in range(30)]
    sites.wait_deferred(*letters)
    wait_explained(sites, domain, "left alone, no connection")
    assert sites.sink_of(domain).sessions < len(letters)
    check(sites, letters, queued_still=30, events_delivered=0, events_bounced=0)
    sites.mend(domain)
    sites.wait_final(*letters, seconds=90)
    check(sites, letters, events_delivered=30, events_bounced=0, sink_messages=30, duplicates=0, queued_still=0)
