"""Delivering to a scripted sink: rows 34 to 39, 41, 45, 46, K1, K3, K4, K5, A9, A12."""

import hashlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postbud.egress.client import Connection
from postbud.egress.egress import Egress
from postbud.egress.settings import EgressSettings, RouteSettings, Timers, TlsMode
from postbud.egress.transaction import RecipientLine, Transaction
from postbud.model.envelope import Notify
from postbud.model.outcome import Bounced, Deferred, Delivered, Outcome, Scope
from postbud.model.refusal import Refusal, Why
from postbud.shaping.limits import SiteLimits
from tests.system.sink import Sink

TIMERS = Timers(
    connect=2,
    connect_v6=0.5,
    banner=0.6,
    command=0.6,
    data=0.6,
    block=0.6,
    content=5,
    end=0.6,
    handshake=2,
    quit=0.5,
    attempt=5,
)
HEADER = b"From: a@b.example\r\nSubject: x\r\n"
BODY = b".a line\r\n..\r\n.\r\nlast\r\n"
LETTER = Transaction("a@b.example", (RecipientLine("r0@dest.example"),), b"Received: x\r\n", HEADER, BODY, 80)
CONTENT = LETTER.prepended + HEADER + b"\r\n" + BODY


def letter(count: int = 1, **changes: Any) -> Transaction:
    return replace(LETTER, recipients=tuple(RecipientLine(f"r{at}@dest.example") for at in range(count)), **changes)


def egress_for(*sinks: Sink, timers: Timers = TIMERS, **route: Any) -> Egress:
    options: dict[str, Any] = {"tls": TlsMode.NONE, **route}
    settings = EgressSettings(
        "relay.example", routes=(RouteSettings("*", f"127.0.0.1:{sinks[0].port}", **options),), timers=timers
    )
    return Egress(settings, dice=random.Random(1), clock=time.monotonic)


async def open_to(sink: Sink, **options: Any) -> Connection | Deferred | Bounced:
    egress = egress_for(sink, **options)
    routing = await egress.route("dest.example", None)
    assert not isinstance(routing, Deferred | Bounced)
    return await egress.connect(routing)


@asynccontextmanager
async def connected(script: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[tuple[Connection, Sink]]:
    async with Sink(script) as sink:
        connection = await open_to(sink, **options)
        assert isinstance(connection, Connection), connection
        try:
            yield connection, sink
        finally:
            await connection.quit()


async def send(script: dict[str, Any], transaction: Transaction = LETTER, **options: Any) -> tuple[list[Outcome], Sink]:
    async with connected(script, **options) as (connection, sink):
        return await connection.deliver(transaction), sink


def deferred(outcome: Outcome, enhanced: str | None = None) -> Deferred:
    assert isinstance(outcome, Deferred), outcome
    assert enhanced in (None, outcome.enhanced)
    return outcome


# -- the good way ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("A9", "45")
@pytest.mark.parametrize("words", [["PIPELINING", "DSN"], []])
@pytest.mark.parametrize("in_file", [True, False])
async def test_content_arrives_octet_for_octet(words: list[str], in_file: bool, tmp_path: Path) -> None:
    body: bytes | Path = BODY
    if in_file:
        body = tmp_path / "body"
        body.write_bytes(BODY)
    outcomes, sink = await send({"words": words}, letter(2, body=body))
    assert all(isinstance(outcome, Delivered) and outcome.dsn_relayed is bool(words) for outcome in outcomes)
    assert sink.messages[0]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert sink.messages[0]["recipients"] == ["r0@dest.example", "r1@dest.example"]


async def test_one_connection_carries_many_messages_and_says_quit() -> None:
    async with connected() as (connection, sink):
        for _ in range(5):
            assert isinstance((await connection.deliver(LETTER))[0], Delivered)
        assert connection.transactions == 5
        await connection.quit()
        assert not connection.usable
        assert sink.sessions == 1
        assert sink.commands[-1] == "QUIT"
        assert sink.commands[0] == "EHLO relay.example"


async def test_the_status_is_asked_just_before_mail_and_a_no_leaves_the_connection_usable() -> None:
    def no() -> None:
        raise Refusal(Why.BLOCKED, "stopped")

    async with connected() as (connection, sink):
        with pytest.raises(Refusal):
            await connection.deliver(LETTER, before_mail=no)
        assert connection.usable
        dots: list[int] = []

        async def before_dot() -> None:
            dots.append(len(sink.messages))

        assert isinstance((await connection.deliver(LETTER, before_mail=lambda: None, before_dot=before_dot))[0], Delivered)
        assert dots == [0]
        assert sum(command.startswith("MAIL") for command in sink.commands) == 1


async def test_dsn_parameters_are_passed_on() -> None:
    recipient = RecipientLine("r0@dest.example", Notify(success=True, said=True), "rfc822;old=name@dest.example")
    _, sink = await send({}, replace(LETTER, recipients=(recipient,), ret_full=True, envid="id 1"))
    assert "MAIL FROM:<a@b.example> SIZE=80 RET=FULL ENVID=id+201" in sink.commands
    assert "RCPT TO:<r0@dest.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;old+3Dname@dest.example" in sink.commands


async def test_a_large_body_streams_from_its_file(tmp_path: Path) -> None:
    body = tmp_path / "body"
    line = b"." + b"x" * 70 + b"\r\n"
    body.write_bytes(line * 40_000)
    outcomes, sink = await send(
        {}, letter(body=body, octets=len(line) * 40_000 + 100), timers=replace(TIMERS, block=20, end=20, content=60)
    )
    assert isinstance(outcomes[0], Delivered)
    expected = hashlib.sha256(LETTER.prepended + HEADER + b"\r\n" + line * 40_000)
    assert sink.messages[0]["sha256"] == expected.hexdigest()


# -- answers at each stage -------------------------------------------------------------------------------------------------


@pytest.mark.row("34", "35")
@pytest.mark.parametrize("stage", ["banner", "ehlo"])
@pytest.mark.parametrize("code", [421, 451, 554])
async def test_a_no_at_the_opening_defers_and_is_about_the_site(stage: str, code: int) -> None:
    script = {stage: f"{code} not now", "helo": f"{code} not now either"}
    async with Sink(script) as sink:
        outcome = deferred(await open_to(sink))  # type: ignore[arg-type]  # a connection fails the test
        assert outcome.scope is Scope.SITE
        assert outcome.reply is not None
        assert outcome.reply.code == code
        assert f"S: {code} not now" in outcome.transcript


@pytest.mark.row("35")
async def test_a_site_that_says_521_everywhere_takes_no_mail() -> None:
    async with Sink({"banner": "521 5.3.2 no mail here"}) as sink:
        outcome = await open_to(sink)
        assert isinstance(outcome, Bounced)
        assert outcome.enhanced == "5.3.2"


@pytest.mark.row("34", "35")
@pytest.mark.parametrize("words", [["PIPELINING"], []])
@pytest.mark.parametrize(
    ("stage", "code", "kind", "scope"),
    [
        ("mail", 421, Deferred, Scope.SITE),
        ("mail", 451, Deferred, Scope.MESSAGE),
        ("mail", 550, Bounced, Scope.MESSAGE),
        ("rcpt", 450, Deferred, Scope.RECIPIENT),
        ("rcpt", 550, Bounced, Scope.RECIPIENT),
        ("data", 451, Deferred, Scope.MESSAGE),
        ("data", 554, Bounced, Scope.MESSAGE),
        ("end", 421, Deferred, Scope.SITE),
        ("end", 451, Deferred, Scope.MESSAGE),
        ("end", 554, Bounced, Scope.MESSAGE),
    ],
)
async def test_each_stage_has_its_outcome(words: list[str], stage: str, code: int, kind: type, scope: Scope) -> None:
    (outcome,), _ = await send({"words": words, stage: f"{code} 0.0.0 no <b>\x1b"})
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Deferred | Bounced)
    assert outcome.scope is scope
    assert outcome.reply is not None
    assert outcome.reply.code == code
    assert "\x1b" not in outcome.why
    assert "C: MAIL FROM:<a@b.example>" in outcome.transcript
    assert not (isinstance(outcome, Deferred) and outcome.unknown_after_dot)


@pytest.mark.row("36")
@pytest.mark.parametrize("words", [["PIPELINING"], []])
async def test_three_recipients_three_outcomes_one_data(words: list[str]) -> None:
    script = {"words": words, "recipients": {"r1@dest.example": "450 4.2.1 later", "r2@dest.example": "550 5.1.1 nobody"}}
    outcomes, sink = await send(script, letter(3))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Deferred, Bounced]
    assert len(sink.messages) == 1
    assert sink.messages[0]["recipients"] == ["r0@dest.example"]


async def test_after_a_refused_message_the_connection_is_reset_and_used_again() -> None:
    async with connected({"mail": ["550 no", "250 ok"]}) as (connection, sink):
        assert isinstance((await connection.deliver(LETTER))[0], Bounced)
        assert isinstance((await connection.deliver(LETTER))[0], Delivered)
        assert "RSET" in sink.commands
        assert sink.sessions == 1


async def test_nobody_accepted_but_354_sends_the_dot_alone() -> None:
    outcomes, sink = await send({"rcpt": "550 5.1.1 no", "data": "354 go", "end": "554 no recipients"}, letter(2))
    assert [type(outcome) for outcome in outcomes] == [Bounced, Bounced]
    assert sink.messages[0]["octets"] == 0


# -- connections that break ------------------------------------------------------------------------------------------------


@pytest.mark.row("37")
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_that_breaks_at_any_octet_of_content_defers(how: str) -> None:
    for at in range(0, len(CONTENT), 7):
        (outcome,), sink = await send({f"content_{how}": at})
        deferred(outcome, "4.4.2")
        assert sink.messages == []


@pytest.mark.row("37")
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_that_breaks_before_the_dot_is_known_not_to_have_delivered(stage: str, how: str) -> None:
    (outcome,), sink = await send({stage: {"end": how}})
    assert not deferred(outcome, "4.4.2").unknown_after_dot
    assert sink.messages == []


@pytest.mark.row("38")
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("in_file", [True, False])
async def test_a_close_instead_of_the_last_reply_is_unknown(how: str, in_file: bool, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(BODY)
    (outcome,), sink = await send({"end": {"end": how}}, letter(body=tmp_path / "body" if in_file else BODY))
    assert deferred(outcome, "4.4.2").unknown_after_dot
    assert len(sink.messages) == 1


@pytest.mark.row("38", "K4")
@pytest.mark.parametrize("end", [{"reply": "250 ok", "end": "close"}, "250 ok|250 once more", "250 ok|hello", "250 ok|421 bye"])
async def test_a_yes_to_the_final_dot_counts_whatever_comes_right_behind_it(end: Any) -> None:
    async with connected({"end": end}) as (connection, sink):
        for count in (1, 2, 3):
            assert isinstance((await connection.deliver(LETTER))[0], Delivered)
            assert len(sink.messages) == count


@pytest.mark.row("39")
async def test_a_last_reply_after_our_timer_is_unknown() -> None:
    (outcome,), sink = await send({"end": {"wait": 1.2, "reply": "250 late"}})
    assert deferred(outcome, "4.4.2").unknown_after_dot
    assert len(sink.messages) == 1


@pytest.mark.row("39")
def test_no_timer_is_shorter_than_the_standard_says() -> None:
    timers = Timers()
    assert (timers.banner, timers.command, timers.data, timers.block, timers.end) == (300, 300, 120, 180, 600)


@pytest.mark.row("K3")
@pytest.mark.parametrize("stage", ["banner", "ehlo"])
async def test_an_opening_octet_by_octet_meets_the_deadline_of_the_stage(stage: str) -> None:
    async with Sink({stage: {"reply": "220 " + "slow" * 20, "drip": 0.05}}) as sink:
        started = time.monotonic()
        deferred(await open_to(sink), "4.4.2")  # type: ignore[arg-type]  # a connection fails the test
        assert time.monotonic() - started < 10 * TIMERS.banner


@pytest.mark.row("K3")
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_silence_at_a_stage_meets_its_deadline(stage: str) -> None:
    (outcome,), _ = await send({stage: {"end": "hang"}, "words": []})
    assert not deferred(outcome, "4.4.2").unknown_after_dot


@pytest.mark.row("K3")
async def test_a_peer_that_stops_reading_meets_the_deadline_of_a_block(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes((b"x" * 78 + b"\r\n") * 1_000_000)  # more than the windows of both sides ever take
    (outcome,), _ = await send({"content_hang": 1}, letter(body=body))
    assert not deferred(outcome, "4.4.2").unknown_after_dot


# -- peers that break the protocol -----------------------------------------------------------------------------------------


@pytest.mark.row("K1", "K4")
@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data", "end"])
@pytest.mark.parametrize(
    ("raw", "enhanced"),
    [
        ("250-one\r\n" * 200 + "250 two\r\n", "4.4.2"),
        ("250-" + "x" * 100_000, "4.4.2"),
        ("999 what\r\n", "4.5.0"),
        ("250 o\0k\r\n", "4.5.0"),
        ("250 ok\n", "4.5.0"),
        ("250-yes\r\n550 no\r\n", "4.5.0"),
        ("<html>\r\n", "4.5.0"),
    ],
)
async def test_what_is_no_reply_defers(stage: str, raw: str, enhanced: str) -> None:
    async with Sink({stage: {"raw": raw}}) as sink:
        connection = await open_to(sink)
        outcome = (await connection.deliver(LETTER))[0] if isinstance(connection, Connection) else connection
        assert deferred(outcome, enhanced).unknown_after_dot is (stage == "end")  # type: ignore[arg-type]  # never a Connection


@pytest.mark.row("K4")
async def test_a_yes_to_data_is_not_believed() -> None:
    (outcome,), sink = await send({"data": "250 ok"})
    deferred(outcome, "4.5.0")
    assert sink.messages == []


@pytest.mark.row("K4")
async def test_a_second_reply_to_data_is_not_taken_for_the_last_one() -> None:
    (outcome,), _ = await send({"data": "354 go|250 2.0.0 already taken"})
    assert not deferred(outcome, "4.5.0").unknown_after_dot


@pytest.mark.row("K4")
async def test_a_no_before_the_end_of_content_stands_and_a_yes_does_not(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes((b"x" * 78 + b"\r\n") * 100_000)
    patient = replace(TIMERS, block=20, content=60)
    (outcome,), _ = await send({"early": [5000, "552 5.3.4 too big"]}, letter(body=body), timers=patient)
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced == "5.3.4"
    (outcome,), _ = await send({"early": [5000, "250 taken"]}, letter(body=body), timers=patient)
    assert not deferred(outcome, "4.5.0").unknown_after_dot


@pytest.mark.row("K5")
async def test_a_size_below_ours_bounces_before_mail() -> None:
    (outcome,), sink = await send({"words": ["SIZE 79"]})
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced == "5.3.4"
    assert not any(command.startswith("MAIL") for command in sink.commands)


@pytest.mark.row("K5")
async def test_ten_thousand_keywords_and_absurd_limits_harm_nobody() -> None:
    async with Sink({"words": [f"X{at}" for at in range(10_000)]}) as sink:
        deferred(await open_to(sink), "4.4.2")  # type: ignore[arg-type]  # a connection fails the test
    outcomes, _ = await send({"words": ["LIMITS RCPTMAX=0 MAILMAX=99999999999 RCPTDOMAINMAX=x", "SIZE banana"]}, letter(3))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)


# -- extensions ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("45")
async def test_helo_serves_where_ehlo_is_unknown() -> None:
    (outcome,), sink = await send({"ehlo": "500 what"})
    assert isinstance(outcome, Delivered)
    assert sink.commands[:2] == ["EHLO relay.example", "HELO relay.example"]
    assert "MAIL FROM:<a@b.example>" in sink.commands


@pytest.mark.row("45")
@pytest.mark.parametrize(("changes", "enhanced"), [({"eight_bit": True}, "5.6.3"), ({"smtputf8": True}, "5.6.7")])
async def test_what_a_message_needs_and_the_peer_does_not_offer_bounces(changes: dict[str, bool], enhanced: str) -> None:
    (outcome,), sink = await send({"words": ["PIPELINING"]}, letter(**changes))
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced == enhanced
    assert not any(command.startswith("MAIL") for command in sink.commands)


@pytest.mark.row("45")
async def test_parameters_that_were_offered_and_refused_are_left_out() -> None:
    (outcome,), sink = await send({"mail": ["555 5.5.4 no SIZE here", "250 ok"]})
    assert isinstance(outcome, Delivered)
    assert [command for command in sink.commands if command.startswith("MAIL")][-1] == "MAIL FROM:<a@b.example>"


@pytest.mark.row("45")
async def test_a_peer_that_offers_pipelining_and_cannot_is_served_in_lock_step() -> None:
    (outcome,), _ = await send({"rcpt": ["503 too fast", "250 ok"]})
    assert isinstance(outcome, Delivered)


@pytest.mark.row("45")
async def test_limits_split_recipients() -> None:
    outcomes, sink = await send({"words": ["PIPELINING", "LIMITS RCPTMAX=2"]}, letter(5))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert [len(message["recipients"]) for message in sink.messages] == [2, 2, 1]


@pytest.mark.row("41")
async def test_recipients_that_are_too_many_go_in_a_second_transaction() -> None:
    outcomes, sink = await send({"rcpt": ["250 ok", "250 ok", "452 4.5.3 too many", "452 4.5.3 too many", "250 ok"]}, letter(4))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert [message["recipients"] for message in sink.messages] == [
        ["r0@dest.example", "r1@dest.example"],
        ["r2@dest.example", "r3@dest.example"],
    ]


# -- reused connections ----------------------------------------------------------------------------------------------------


@pytest.mark.row("46")
@pytest.mark.parametrize("mail", ["421 4.4.2 idle too long", {"end": "close"}, {"end": "reset"}], ids=["421", "close", "reset"])
async def test_a_session_that_died_while_idle_is_dialled_anew_without_harm(mail: Any) -> None:
    async with connected({"mail": ["250 ok", mail, "250 ok"]}) as (connection, sink):
        for _ in range(3):
            assert isinstance((await connection.deliver(LETTER))[0], Delivered)
        assert sink.sessions == 2
        assert len(sink.messages) == 3


@pytest.mark.row("46")
async def test_a_first_message_that_meets_421_is_deferred() -> None:
    (outcome,), sink = await send({"mail": "421 4.3.2 busy"})
    assert deferred(outcome, "4.3.2").scope is Scope.SITE
    assert sink.sessions == 1


@pytest.mark.row("46")
async def test_a_failed_rset_costs_the_connection_and_no_message() -> None:
    async with connected({"mail": ["550 no", "250 ok"], "rset": "500 what"}) as (connection, sink):
        assert isinstance((await connection.deliver(LETTER))[0], Bounced)
        assert not connection.usable
        assert isinstance((await connection.deliver(LETTER))[0], Delivered)
        assert sink.sessions == 2


@pytest.mark.row("46")
async def test_mailmax_and_our_own_limit_end_a_session_in_time() -> None:
    limits = SiteLimits(messages_per_connection=2)
    for script, options in (({"words": ["LIMITS MAILMAX=2"]}, {}), ({}, {"limits": limits})):
        async with connected(script, **options) as (connection, sink):
            for _ in range(4):
                assert isinstance((await connection.deliver(LETTER))[0], Delivered)
            assert sink.sessions == 2
            assert not connection.usable


# -- content of ours that cannot be sent -----------------------------------------------------------------------------------


@pytest.mark.row("A12")
@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\r\n.\nMAIL FROM:<x@y>\r\n", b"a\rb\r\n"])
@pytest.mark.parametrize("in_file", [True, False])
async def test_a_bare_cr_or_lf_never_reaches_the_peer(body: bytes, in_file: bool, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(body)
    (outcome,), sink = await send({}, letter(body=tmp_path / "body" if in_file else body))
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced == "5.6.0"
    assert sink.messages == []


async def test_a_body_file_that_is_gone_defers_and_delivers_nothing(tmp_path: Path) -> None:
    (outcome,), sink = await send({}, letter(body=tmp_path / "gone"))
    assert not deferred(outcome, "4.3.0").unknown_after_dot
    assert sink.messages == []


async def test_nothing_listening_defers() -> None:
    async with Sink() as sink:
        pass
    deferred(await open_to(sink), "4.4.1")  # type: ignore[arg-type]  # a connection fails the test
