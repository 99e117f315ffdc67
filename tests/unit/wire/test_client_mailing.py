"""One transaction of the client: commands, what follows which reply, and an outcome for each recipient."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.model.envelope import Notify
from postbud.model.outcome import Deferred, Delivered, Outcome, Peer, Reply, Scope
from postbud.wire.client import Stage
from postbud.wire.extensions import Extensions
from postbud.wire.mailing import Mailing, Step, failure, mail_line, obstacle, rcpt_line, split, xtext
from postbud.wire.transaction import RecipientLine, Transaction

PIPELINED = Extensions(frozenset({"PIPELINING"}))
LOCKSTEP = Extensions()
PEER = Peer("mx.example", "192.0.2.1")
LETTER = Transaction("a@b.example", (RecipientLine("r0@x.example"),), b"", b"Subject: x\r\n", b"hi\r\n", 20)
CAUSE = Deferred("broken", "4.4.2", Scope.SITE, peer=PEER, unknown_after_dot=True)


def letter(count: int) -> Transaction:
    return replace(LETTER, recipients=tuple(RecipientLine(f"r{at}@x.example") for at in range(count)))


def play(
    offered: Extensions, count: int, answers: dict[Stage, list[Reply]], transaction: Transaction | None = None
) -> tuple[Mailing, list[bytes], Step]:
    """Answer every command from the script; give what was sent and the last step."""
    transaction = transaction or letter(count)
    mailing = Mailing(transaction, transaction.recipients, offered)
    scripts = {stage: list(replies) for stage, replies in answers.items()}
    line, stages = mailing.begin()
    sent, asked, step = [line], list(stages), Step.WAIT
    while asked:
        stage = asked.pop(0)
        step = mailing.answered(stage, scripts[stage].pop(0))
        match step:
            case Step.SEND:
                line, stages = mailing.take()
                sent.append(line)
                asked += stages
            case Step.CONTENT | Step.EMPTY:
                sent.append(b"content" if step is Step.CONTENT else b".")
                asked.append(Stage.END)
            case _:
                pass
    return mailing, sent, step


def r(code: int, enhanced: str | None = None) -> Reply:
    return Reply(code, ("text",), enhanced)


def kinds(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(type(one).__name__, "" if isinstance(one, Delivered) else one.scope.value) for one in outcomes]


@pytest.mark.parametrize("offered", [PIPELINED, LOCKSTEP])
def test_a_message_is_delivered_to_everybody(offered: Extensions) -> None:
    answers = {Stage.MAIL: [r(250)], Stage.RCPT: [r(250), r(251)], Stage.DATA: [r(354)], Stage.END: [r(250)]}
    mailing, sent, step = play(offered, 2, answers)
    assert step is Step.DONE
    commands = b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<r0@x.example>\r\n", b"RCPT TO:<r1@x.example>\r\n", b"DATA\r\n"
    assert sent == ([b"".join(commands), b"content"] if offered is PIPELINED else [*commands, b"content"])
    assert mailing.complete
    assert mailing.all_delivered
    assert kinds(mailing.outcomes(PEER, "")) == [("Delivered", ""), ("Delivered", "")]
    assert mailing.too_many() == []
    assert mailing.fallback() is None


@pytest.mark.row("36")
@pytest.mark.parametrize("offered", [PIPELINED, LOCKSTEP])
def test_three_answers_to_rcpt_are_three_outcomes_of_one_data(offered: Extensions) -> None:
    answers = {
        Stage.MAIL: [r(250)],
        Stage.RCPT: [r(250), r(450, "4.2.0"), r(550, "5.1.1")],
        Stage.DATA: [r(354)],
        Stage.END: [r(250)],
    }
    mailing, _, _ = play(offered, 3, answers)
    assert mailing.delivered
    assert not mailing.all_delivered
    assert kinds(mailing.outcomes(PEER, "t")) == [("Delivered", ""), ("Deferred", "recipient"), ("Bounced", "recipient")]


@pytest.mark.parametrize("offered", [PIPELINED, LOCKSTEP])
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({Stage.MAIL: [r(451)]}, ("Deferred", "message")),
        ({Stage.MAIL: [r(550)]}, ("Bounced", "message")),
        ({Stage.MAIL: [r(421)]}, ("Deferred", "site")),
        ({Stage.RCPT: [r(450)]}, ("Deferred", "recipient")),
        ({Stage.RCPT: [r(599)]}, ("Bounced", "recipient")),
        ({Stage.DATA: [r(451)]}, ("Deferred", "message")),
        ({Stage.DATA: [r(554)]}, ("Bounced", "message")),
        ({Stage.END: [r(452)]}, ("Deferred", "message")),
        ({Stage.END: [r(552)]}, ("Bounced", "message")),
        ({Stage.END: [r(421)]}, ("Deferred", "site")),
    ],
)
@pytest.mark.row("34", "35")
def test_each_stage_decides_by_its_first_digit_about_its_own_subject(
    offered: Extensions, answers: dict[Stage, list[Reply]], expected: tuple[str, str]
) -> None:
    good = {Stage.MAIL: [r(250)], Stage.RCPT: [r(250)], Stage.DATA: [r(354)], Stage.END: [r(250)]}
    if Stage.MAIL in answers or Stage.RCPT in answers:
        good |= {Stage.DATA: [r(503)]}
    if Stage.MAIL in answers:
        good |= {Stage.RCPT: [r(503)]}
    mailing, _, step = play(offered, 1, good | answers)
    assert step is Step.DONE
    assert kinds(mailing.outcomes(PEER, "t")) == [expected]
    assert mailing.complete is (Stage.END in answers)


@pytest.mark.row("34", "35")
@pytest.mark.parametrize("stage", [Stage.BANNER, Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.AUTH, Stage.RSET])
def test_a_no_before_mail_is_about_the_site_and_never_final(stage: Stage) -> None:
    outcome = failure(stage, Reply(554, ("no",), "5.7.1"), PEER, "t")
    assert isinstance(outcome, Deferred)
    assert (outcome.enhanced, outcome.scope) == ("4.7.1", Scope.SITE)
    assert failure(stage, r(421), Peer(address="192.0.2.9"), "").why.startswith("192.0.2.9 said")


def test_a_bounce_without_enhanced_code_says_undefined() -> None:
    assert failure(Stage.RCPT, r(550), PEER, "").enhanced == "5.0.0"
    assert failure(Stage.RCPT, r(450), PEER, "").enhanced == "4.0.0"


def test_nobody_accepted_but_the_peer_waits_gets_the_dot_alone() -> None:
    answers = {Stage.MAIL: [r(250)], Stage.RCPT: [r(550), r(550)], Stage.DATA: [r(354)], Stage.END: [r(554)]}
    mailing, sent, step = play(PIPELINED, 2, answers)
    assert sent[-1] == b"."
    assert step is Step.DONE
    assert mailing.complete
    assert not mailing.delivered
    assert kinds(mailing.outcomes(PEER, "")) == [("Bounced", "recipient")] * 2


def test_421_in_the_middle_of_lock_step_recipients_stops_asking() -> None:
    answers = {Stage.MAIL: [r(250)], Stage.RCPT: [r(421)]}
    mailing, _, step = play(LOCKSTEP, 2, answers)
    assert step is Step.DONE
    assert kinds(mailing.outcomes(PEER, "")) == [("Deferred", "site")] * 2
    assert not mailing.unheard


@pytest.mark.row("37", "38")
def test_a_broken_session_leaves_what_was_answered_and_defers_the_rest() -> None:
    mailing = Mailing(letter(3), letter(3).recipients, PIPELINED)
    mailing.begin()
    assert mailing.unheard
    mailing.answered(Stage.MAIL, r(250))
    mailing.answered(Stage.RCPT, r(550))
    mailing.answered(Stage.RCPT, r(250))
    assert not mailing.unheard
    outcomes = mailing.interrupted(CAUSE)
    assert kinds(outcomes) == [("Bounced", "recipient"), ("Deferred", "site"), ("Deferred", "site")]
    assert outcomes[1] is CAUSE
    refused = Mailing(letter(1), letter(1).recipients, PIPELINED)
    refused.answered(Stage.MAIL, r(421))
    assert refused.unheard
    assert kinds(refused.interrupted(CAUSE)) == [("Deferred", "site")]
    assert refused.accepted == 0


@pytest.mark.row("41")
def test_recipients_beyond_the_peers_number_are_told_apart_from_refused_ones() -> None:
    rcpts = [r(250), r(452, "4.5.3"), r(452), r(452, "4.2.2")]
    mailing, _, _ = play(PIPELINED, 4, {Stage.MAIL: [r(250)], Stage.RCPT: rcpts, Stage.DATA: [r(354)], Stage.END: [r(250)]})
    assert mailing.too_many() == [1, 2]
    nobody, _, _ = play(LOCKSTEP, 1, {Stage.MAIL: [r(250)], Stage.RCPT: [r(452)]})
    assert nobody.too_many() == []


@pytest.mark.row("45")
@pytest.mark.parametrize(("offered", "again"), [(PIPELINED, [0]), (LOCKSTEP, [])])
def test_a_503_among_accepted_recipients_is_of_the_pace_when_commands_were_pipelined(
    offered: Extensions, again: list[int]
) -> None:
    rcpts = [r(503), r(250)]
    mailing, _, _ = play(offered, 2, {Stage.MAIL: [r(250)], Stage.RCPT: rcpts, Stage.DATA: [r(354)], Stage.END: [r(250)]})
    assert mailing.too_many() == again


@pytest.mark.row("45")
def test_what_was_offered_and_then_refused_is_tried_once_without() -> None:
    full = Extensions(frozenset({"PIPELINING", "SIZE", "DSN", "8BITMIME"}), 1000)
    refused = {Stage.MAIL: [r(555)], Stage.RCPT: [r(503)], Stage.DATA: [r(503)]}
    smaller = play(full, 1, refused)[0].fallback()
    assert smaller is not None
    assert smaller.words == {"PIPELINING"}
    assert play(smaller, 1, refused)[0].fallback() is None
    eight = play(full, 1, refused, replace(LETTER, eight_bit=True))[0].fallback()
    assert eight is not None
    assert eight.words == {"PIPELINING", "8BITMIME"}
    assert play(full, 1, refused | {Stage.MAIL: [r(550)]})[0].fallback() is None


@pytest.mark.row("45")
def test_pipelining_and_dsn_refused_at_rcpt_are_left_out() -> None:
    refused = {Stage.MAIL: [r(250)], Stage.RCPT: [r(503)], Stage.DATA: [r(503)]}
    smaller = play(Extensions(frozenset({"PIPELINING", "DSN"})), 1, refused)[0].fallback()
    assert smaller is not None
    assert smaller.words == {"DSN"}
    smaller = play(smaller, 1, refused)[0].fallback()
    assert smaller == Extensions()
    assert play(LOCKSTEP, 1, refused)[0].fallback() is None
    assert play(PIPELINED, 1, refused | {Stage.RCPT: [r(550)], Stage.DATA: [r(554)]})[0].fallback() is None
    assert Mailing(LETTER, LETTER.recipients, PIPELINED).fallback() is None


def test_parameters_are_sent_when_offered_and_asked_for() -> None:
    everything = Extensions(frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "REQUIRETLS", "DSN"}))
    full = replace(LETTER, eight_bit=True, smtputf8=True, require_tls=True, ret_full=True, envid="a+b c")
    assert mail_line(full, everything) == (
        b"MAIL FROM:<a@b.example> SIZE=20 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=FULL ENVID=a+2Bb+20c\r\n"
    )
    assert b" RET=HDRS " in mail_line(replace(full, ret_full=False), everything)
    assert b" RET=" not in mail_line(replace(full, ret_full=None), everything)
    assert mail_line(full, LOCKSTEP) == b"MAIL FROM:<a@b.example> SMTPUTF8\r\n"
    assert mail_line(replace(LETTER, reverse_path=""), Extensions(frozenset({"DSN"}))) == b"MAIL FROM:<>\r\n"
    notified = RecipientLine("x@y.example", Notify(success=True, delay=False, said=True), "rfc822;o=x@y.example")
    assert rcpt_line(notified, everything) == (b"RCPT TO:<x@y.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+3Dx@y.example\r\n")
    assert rcpt_line(notified, LOCKSTEP) == b"RCPT TO:<x@y.example>\r\n"
    assert rcpt_line(RecipientLine("x@y.example"), everything) == b"RCPT TO:<x@y.example>\r\n"
    never = RecipientLine("x@y.example", Notify(never=True, said=True))
    nothing = RecipientLine("x@y.example", Notify(failure=False, delay=False, said=True))
    assert rcpt_line(never, everything) == rcpt_line(nothing, everything) == b"RCPT TO:<x@y.example> NOTIFY=NEVER\r\n"


@pytest.mark.row("D15")
@given(st.text(max_size=30))
def test_xtext_holds_no_octet_that_could_end_a_line(text: str) -> None:
    encoded = xtext(text)
    assert encoded.isascii()
    assert not set(encoded) & set(" =\r\n\0")


@pytest.mark.row("K5", "45")
@pytest.mark.parametrize(
    ("changes", "offered", "enhanced"),
    [
        ({}, Extensions(size_octets=19), "5.3.4"),
        ({"smtputf8": True}, LOCKSTEP, "5.6.7"),
        ({"eight_bit": True}, LOCKSTEP, "5.6.3"),
        ({}, Extensions(size_octets=20), None),
        ({"eight_bit": True, "smtputf8": True}, Extensions(frozenset({"8BITMIME", "SMTPUTF8"})), None),
    ],
)
def test_what_the_peer_cannot_take_is_known_before_mail(
    changes: dict[str, bool], offered: Extensions, enhanced: str | None
) -> None:
    hit = obstacle(replace(LETTER, **changes), offered)
    assert (hit[1] if hit else None) == enhanced


@pytest.mark.row("K5")
def test_recipients_are_split_as_the_peer_says() -> None:
    many = replace(LETTER, recipients=tuple(RecipientLine(f"r@{'ab'[at % 2]}.example") for at in range(6)))
    places = list(range(6))
    assert split(places, many, LOCKSTEP, 100) == places
    assert split(places, many, LOCKSTEP, 4) == [0, 1, 2, 3]
    assert split(places, many, Extensions(limits={"RCPTMAX": 2}), 100) == [0, 1]
    assert split(places, many, Extensions(limits={"RCPTDOMAINMAX": 1}), 100) == [0, 2, 4]
    assert split(places, many, Extensions(limits={"RCPTDOMAINMAX": 1, "RCPTMAX": 2}), 100) == [0, 2]


CODES = st.sampled_from([250, 421, 450, 452, 500, 503, 550, 555])


@given(
    st.booleans(), CODES, st.lists(CODES, min_size=1, max_size=4), st.sampled_from([354, 421, 451, 503, 554]), CODES,
)  # fmt: skip
def test_every_recipient_has_exactly_one_outcome(pipelined: bool, mail: int, rcpts: list[int], data: int, end: int) -> None:
    answers = {Stage.MAIL: [r(mail)], Stage.RCPT: [r(code) for code in rcpts], Stage.DATA: [r(data)], Stage.END: [r(end)]}
    mailing, _, step = play(PIPELINED if pipelined else LOCKSTEP, len(rcpts), answers)
    assert step is Step.DONE
    outcomes = mailing.outcomes(PEER, "")
    assert len(outcomes) == len(rcpts)
    delivered = [at for at, one in enumerate(outcomes) if isinstance(one, Delivered)]
    if end == 250 and data == 354 and mail == 250:
        if pipelined or 421 not in rcpts:
            assert delivered == [at for at, code in enumerate(rcpts) if code == 250]
    else:
        assert delivered == []
    assert all(isinstance(one, Deferred) for one, code in zip(outcomes, rcpts, strict=True) if code == 421 and mail == 250)
