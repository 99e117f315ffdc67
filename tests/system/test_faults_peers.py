"""Next hops that misbehave, each in a whole relay and ending in the invariant checker: rows 34 to 39, 42, 45 and 46.

One relay that finds every site by MX, with timers a hundredth of RFC 5321's, one connection a site and retries after seconds.
"""

import quopri
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.certificates import make_certificate
from tests.system.sites import Letter, Sites
from tests.system.smtp import make_content, new_test_id

END_TIMER_SECONDS = 600 * 0.01
STRICT: dict[str, dict[str, Any]] = {  # sites of which the operator says that TLS is required
    "no-handshake": {"handshake": "fail"},
    "starttls-454": {"starttls": "454 4.7.0 not now"},
    "stripped": {},
}
NO_PIPELINING = ["SIZE 50000000", "8BITMIME", "ENHANCEDSTATUSCODES"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("peers")
    made = Sites(folder, {"timeout_scale": 0.01, "connections_per_site": 1})
    try:
        addresses = {name: made.site(f"{name}.strict.example", dict(script)) for name, script in STRICT.items()}
        made.certificate = make_certificate(folder, tuple(addresses.values()))
        for name, address in addresses.items():
            made.settings.extra += (
                f'[[relay.route]]\nmatch = "{name}.strict.example"\nnext_hop = "{address}:{made.port}"\n'
                f'tls = "required"\nca_file = "{made.certificate[0]}"\n'
            )
        made.start()
        yield made
        counts = made.check_all()  # of all letters of this module together
        assert counts["duplicates"] == counts["duplicates_after_unknown"]
    finally:
        made.close()


def expect(counts: dict[str, int], **wanted: int) -> None:
    assert {name: counts[name] for name in wanted} == wanted, dict(counts)


# -- 34 and 35: a no at each stage -----------------------------------------------------------------------------------------


@pytest.mark.row("34")
@pytest.mark.parametrize("code", [421, 451])
def test_a_4yz_at_any_stage_defers_and_delivers_once_when_it_is_over(sites: Sites, code: int) -> None:
    stages = ["banner", "ehlo", "mail", "rcpt", "data", "end"]
    letters: dict[str, Letter] = {}
    for stage in stages:
        domain = f"{stage}-{code}.row34.example"
        sites.site(domain, {stage: f"{code} 4.3.2 not now"})
        letters[domain] = sites.send(f"a@{domain}", f"b@{domain}")
    sites.wait_deferred(*letters.values())
    during = sites.check(*letters.values())
    expect(during, queued_still=2 * len(stages), events_delivered=0, events_bounced=0, duplicates=0)
    for domain, letter in letters.items():
        assert sites.events(letter)[0]["reply"].startswith(str(code)), domain
        sites.mend(domain)
    sites.wait_final(*letters.values())
    expect(sites.check(*letters.values()), events_delivered=2 * len(stages), events_bounced=0, duplicates=0, queued_still=0)


@pytest.mark.row("34", "35")
def test_a_no_at_the_opening_goes_to_the_next_host_at_once(sites: Sites) -> None:
    first: dict[str, dict[str, Any]] = {
        "banner-421": {"banner": "421 busy"},
        "banner-554": {"banner": "554 no"},
        "banner-closed": {"banner": {"end": "close"}},
        "ehlo-451": {"ehlo": "451 no"},
        "ehlo-550": {"ehlo": "550 no", "helo": "550 no"},
    }
    letters = {}
    for name, script in first.items():
        sites.site(f"{name}.next.example", script, {})
        letters[name] = sites.send(f"a@{name}.next.example")
    sites.wait_final(*letters.values())
    for name, letter in letters.items():
        assert (name, sites.kinds(letter)) == (name, ["delivered"])
        assert sites.events(letter)[0]["host"] == f"mx2.{name}.next.example"
        assert sites.sink_of(f"{name}.next.example").sessions == 1
    expect(sites.check(*letters.values()), events_delivered=5, sink_messages=5, duplicates=0)


@pytest.mark.row("34")
def test_after_a_4yz_to_one_recipient_only_that_one_is_sent_again(sites: Sites) -> None:
    domain = "one-of-two.row34.example"
    sites.site(domain, {"recipients": {f"later@{domain}": "450 4.2.1 later"}})
    letter = sites.send(f"now@{domain}", f"later@{domain}")
    sites.wait_deferred_one(letter, f"later@{domain}")
    expect(sites.check(letter), queued_still=1, events_delivered=1, sink_messages=1)
    sites.mend(domain)
    sites.wait_final(letter)
    assert [one["recipients"] for one in sites.sink_of(domain).messages] == [[f"now@{domain}"], [f"later@{domain}"]]
    expect(sites.check(letter), queued_still=0, events_delivered=2, sink_messages=2, duplicates=0)


@pytest.mark.row("35")
def test_a_5yz_bounces_its_subject_only_with_one_report(sites: Sites) -> None:
    for stage in ("mail", "data", "end"):
        sites.site(f"{stage}.row35.example", {stage: "554 5.7.1 never"})
    sites.site("rcpt.row35.example", {"recipients": {"a@rcpt.row35.example": "550 5.1.1 nobody"}})
    sites.site("none.row35.example", {"banner": "521 5.3.2 no mail here"})
    letters = {
        stage: sites.send(f"a@{stage}.row35.example", f"b@{stage}.row35.example")
        for stage in ("mail", "rcpt", "data", "end", "none")
    }
    sites.wait_final(*letters.values())
    for stage, letter in letters.items():
        assert (stage, sites.kinds(letter)) == (stage, ["bounced"])
        last = ["delivered" if stage == "rcpt" else "bounced"]
        assert (stage, sites.kinds(letter, f"b@{stage}.row35.example")) == (stage, last)
        (report,) = sites.wait_reports(letter)
        assert report.count(b"Action: failed") == (1 if stage == "rcpt" else 2)
    expect(sites.check(*letters.values()), events_bounced=9, events_delivered=1, duplicates=0, queued_still=0)


@pytest.mark.row("35")
def test_a_5yz_at_the_opening_of_the_only_host_waits(sites: Sites) -> None:
    domain = "opening.row35.example"
    sites.site(domain, {"banner": "554 5.3.2 no"})
    letter = sites.send(f"a@{domain}")
    sites.wait_deferred(letter)
    expect(sites.check(letter), queued_still=1, events_bounced=0, sink_messages=0)
    sites.mend(domain)
    sites.wait_final(letter)
    expect(sites.check(letter), queued_still=0, events_delivered=1, events_bounced=0, sink_messages=1, duplicates=0)


@pytest.mark.row("36")
@pytest.mark.parametrize("words", [["PIPELINING", *NO_PIPELINING], NO_PIPELINING], ids=["pipelined", "lock step"])
def test_three_recipients_have_three_outcomes_of_one_data(sites: Sites, words: list[str]) -> None:
    domain = f"n{len(words)}.row36.example"
    good, later, never = f"good@{domain}", f"later@{domain}", f"never@{domain}"
    sites.site(domain, {"words": words, "recipients": {later: "450 4.2.1 later", never: "550 5.1.1 nobody"}})
    letter = sites.send(good, later, never)
    sites.wait_deferred_one(letter, later)
    expect(sites.check(letter), events_delivered=1, events_bounced=1, queued_still=1, sink_messages=1)
    assert sites.sink_of(domain).commands.count("DATA") == 1
    sites.mend(domain)
    sites.wait_final(letter)
    assert (sites.kinds(letter, good), sites.kinds(letter, never)) == (["delivered"], ["bounced"])
    assert sites.kinds(letter, later)[-1] == "delivered"
    assert len(sites.wait_reports(letter)) == 1
    expect(sites.check(letter), events_delivered=2, events_bounced=1, queued_still=0, sink_messages=2, duplicates=0)


# -- 37, 38, 39: connections that break, answers that do not come -------------------------------------------------------------


@pytest.mark.row("37")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_breaks_within_the_content_delivers_once_later(sites: Sites, how: str) -> None:
    size = 1024
    letters: dict[str, Letter] = {}
    for at in [*range(0, size, 31), 1_000_000]:
        domain = f"at{at}.{how}.row37.example"
        sites.site(domain, {f"content_{how}": min(at, size)})
        content = make_content(new_test_id(), max(at, size))  # the last one is streamed from a file
        letters[domain] = sites.send(f"a@{domain}", content=content)
    sites.wait_deferred(*letters.values())
    during = sites.check(*letters.values())
    expect(during, queued_still=len(letters), events_delivered=0, events_bounced=0, sink_messages=0)
    for domain in letters:
        sites.mend(domain)
    sites.wait_final(*letters.values())
    after = sites.check(*letters.values())
    expect(after, events_delivered=len(letters), sink_messages=len(letters), duplicates=0, queued_still=0)


@pytest.mark.row("38")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_end_instead_of_the_last_reply_is_tried_again_flagged_and_only_once(sites: Sites, how: str) -> None:
    domain = f"{how}.row38.example"
    sites.site(domain, {"end": [{"end": how}, "250 2.0.0 taken"]})
    letter = sites.send(f"a@{domain}", f"b@{domain}")
    sites.wait_final(letter)
    for mailbox in letter.recipients:
        deferred, delivered = sites.events(letter, mailbox)
        assert (deferred["kind"], deferred["possible_duplicate"], delivered["kind"]) == ("deferred", True, "delivered")
    first, *later = sites.sink_of(domain).messages
    assert first["recipients"] == list(letter.recipients)
    assert sorted(mailbox for one in later for mailbox in one["recipients"]) == sorted(letter.recipients)
    assert later[0]["at"] - first["at"] > 0.35  # backed off: half a second, less a fifth of it by jitter
    expect(sites.check(letter), events_delivered=2, queued_still=0, duplicates=2, duplicates_after_unknown=2)


@pytest.fixture(scope="module", autouse=True)
def late(sites: Sites) -> tuple[Letter, Letter]:
    """Send what waits longest before everything else: a letter whose answer comes late, and one to somebody else."""
    sites.site("late.row39.example", {"end": [{"wait": END_TIMER_SECONDS + 2, "reply": "250 late"}, "250 2.0.0 taken"]})
    sites.site("other.row39.example")
    return sites.send("a@late.row39.example"), sites.send("a@other.row39.example")


@pytest.mark.row("39")
def test_a_yes_after_our_timer_is_tried_again_flagged_and_only_once(sites: Sites, late: tuple[Letter, Letter]) -> None:
    sites.wait_final(*late)
    deferred, delivered = sites.events(late[0])
    assert (deferred["kind"], deferred["possible_duplicate"], delivered["kind"]) == ("deferred", True, "delivered")
    assert deferred["latency_seconds"] > END_TIMER_SECONDS - 0.1
    (other,) = sites.events(late[1])
    assert (other["kind"], other["at"] < deferred["at"]) == ("delivered", True)  # nobody waited for the late one (P6)
    counts = sites.check(*late)
    expect(counts, events_delivered=2, sink_messages=3, duplicates=1, duplicates_after_unknown=1)


# -- 42: TLS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.row("42")
def test_where_tls_is_an_offer_its_failure_means_clear_at_once(sites: Sites) -> None:
    letters = {}
    for name, script in STRICT.items():
        sites.site(f"{name}.row42.example", dict(script))
        letters[name] = sites.send(f"a@{name}.row42.example")
    sites.wait_final(*letters.values())
    for name, letter in letters.items():
        assert (name, sites.kinds(letter)) == (name, ["delivered"])
        assert not sites.sink_of(f"{name}.row42.example").messages[0]["tls"]
    expect(sites.check(*letters.values()), events_delivered=3, sink_messages=3, duplicates=0)


@pytest.mark.row("42")
def test_where_tls_is_required_its_failure_waits_and_nothing_goes_in_clear(sites: Sites) -> None:
    letters = {name: sites.send(f"a@{name}.strict.example") for name in STRICT}
    sites.wait_deferred(*letters.values())
    for letter in letters.values():
        assert {(event["kind"], event["enhanced"]) for event in sites.events(letter)} == {("deferred", "4.7.5")}
    expect(sites.check(*letters.values()), queued_still=3, events_bounced=0, sink_messages=0)
    for name in STRICT:
        _, certificate, key = sites.certificate
        sites.sink_of(f"{name}.strict.example").script = {"certificate": str(certificate), "key": str(key)}
    sites.wait_final(*letters.values())
    assert all(one["tls"] for name in STRICT for one in sites.sink_of(f"{name}.strict.example").messages)
    expect(sites.check(*letters.values()), queued_still=0, events_delivered=3, sink_messages=3, duplicates=0)


# -- 45: extensions ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("45")
def test_what_is_not_offered_or_offered_and_refused_is_done_without(sites: Sites) -> None:
    scripts: dict[str, dict[str, Any]] = {
        "helo": {"ehlo": "500 what"},
        "nothing": {"words": []},
        "lock-step": {"words": NO_PIPELINING},
        "too-fast": {"rcpt": ["503 5.5.1 too fast", "503 5.5.1 too fast", "250 ok"]},
        "too-fast-once": {"rcpt": ["503 5.5.1 too fast", "250 ok"]},
        "no-parameters": {"mail": ["555 5.5.4 no SIZE here", "250 ok"]},
    }
    letters = {}
    for name, script in scripts.items():
        sites.site(f"{name}.row45.example", script)
        letters[name] = sites.send(f"a@{name}.row45.example", f"b@{name}.row45.example")
    sites.wait_final(*letters.values())
    for name, letter in letters.items():
        assert (name, sites.kinds(letter)) == (name, ["delivered"])
    expect(sites.check(*letters.values()), events_delivered=12, events_deferred=0, sink_messages=7, duplicates=0)


@pytest.mark.row("45")
def test_without_8bitmime_the_same_text_arrives_in_7_bits(sites: Sites) -> None:
    domain = "seven.row45.example"
    sites.site(domain, {"words": ["PIPELINING"]})
    content = make_content(new_test_id()).replace(b"us-ascii", b"utf-8") + "Blåbærgrød\r\n".encode() * 3
    letter = sites.send(f"a@{domain}", content=content, mail_parameters=" BODY=8BITMIME")
    sites.wait_final(letter)
    (message,) = sites.sink_of(domain).messages
    assert message["content"].isascii()

    def restored(octets: bytes) -> bytes:
        header, _, body = octets.partition(b"\r\n\r\n")
        header = re.sub(rb"\r\nContent-Transfer-Encoding: quoted-printable", b"", header)
        return header + b"\r\n\r\n" + quopri.decodestring(body)

    sites.restored[letter.test_id] = restored
    expect(sites.check(letter), events_delivered=1, sink_messages=1, duplicates=0)


@pytest.mark.row("45")
@pytest.mark.parametrize(
    "script", [{"words": ["PIPELINING", "8BITMIME"]}, {"mail": "553 5.6.7 no"}], ids=["not offered", "refused"]
)
def test_without_smtputf8_a_name_that_needs_it_bounces(sites: Sites, script: dict[str, Any]) -> None:
    domain = f"utf8-{len(script.get('words', []))}.row45.example"
    sites.site(domain, script)
    letter = sites.send(f"blåbær@{domain}", mail_parameters=" SMTPUTF8")
    sites.wait_final(letter)
    (event,) = sites.events(letter)
    assert (event["kind"], event["enhanced"]) == ("bounced", "5.6.7")
    sites.wait_reports(letter)
    expect(sites.check(letter), events_bounced=1, sink_messages=0)


# -- 46: connections that are used again -----------------------------------------------------------------------------------


@pytest.mark.row("46")
@pytest.mark.parametrize("mail", ["421 4.4.2 idle too long", {"end": "close"}, {"end": "reset"}], ids=["421", "close", "reset"])
def test_a_session_that_ended_while_idle_is_no_fault_of_the_next_message(sites: Sites, mail: Any, request: Any) -> None:
    domain = f"{request.node.callspec.id}.row46.example"
    sites.site(domain, {"mail": ["250 ok", mail, "250 ok"]})
    letters = []
    for _ in range(3):
        letters.append(sites.send(f"a@{domain}"))
        sites.wait_final(*letters)
    assert [sites.kinds(letter) for letter in letters] == [["delivered"]] * 3
    assert sites.sink_of(domain).sessions == 2
    expect(sites.check(*letters), events_delivered=3, events_deferred=0, sink_messages=3, duplicates=0)


@pytest.mark.row("46")
def test_a_421_in_the_middle_of_many_messages_loses_none(sites: Sites) -> None:
    domain = "batch.row46.example"
    sites.site(domain, {"mail": ["250 ok"] * 5 + ["421 4.3.2 enough"] + ["250 ok"] * 5 + [{"end": "reset"}, "250 ok"]})
    letters = [sites.send(f"a@{domain}", f"b@{domain}") for _ in range(20)]
    sites.wait_final(*letters)
    expect(sites.check(*letters), events_delivered=40, events_bounced=0, sink_messages=20, duplicates=0, queued_still=0)


@pytest.mark.row("46")
def test_a_failed_rset_costs_the_connection_and_no_message(sites: Sites) -> None:
    domain = "rset.row46.example"
    sites.site(domain, {"rset": "500 what", "recipients": {f"never@{domain}": "550 5.1.1 nobody"}})
    letters = []
    for mailbox in (f"never@{domain}", f"a@{domain}"):
        letters.append(sites.send(mailbox))
        sites.wait_final(*letters)
    assert [sites.kinds(letter) for letter in letters] == [["bounced"], ["delivered"]]
    assert sites.sink_of(domain).sessions == 2
    sites.wait_reports(letters[0])
    expect(sites.check(*letters), events_bounced=1, events_delivered=1, events_deferred=0, sink_messages=1, duplicates=0)
