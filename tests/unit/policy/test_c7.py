"""Clause C7: each rule with its hit, its miss and its named false positives."""

from datetime import UTC, datetime

import pytest

from postbud.mime.header import HeaderSection
from postbud.model.account import Kind
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Why
from postbud.policy.chain import RULES, Ruling, Verdict, judge, mode_of
from postbud.policy.facts import Facts, gather
from postbud.policy.rule import Finding, Mode, Rule
from postbud.policy.rules import _skeleton

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GOOD = b"From: Printer <printer@acme.example>\r\nTo: you@example.net\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n"


def facts(header: bytes, kind: Kind = Kind.TRANSACTIONAL, allow_from: tuple[str, ...] = ()) -> Facts:
    return gather(
        HeaderSection.parse(header),
        kind=kind,
        reverse_path=None,
        recipients=(Mailbox.parse("you@example.net"),),
        received_at=NOW,
        covered=lambda domain: domain == "acme.example" or domain.endswith(".acme.example"),
        allow_from=allow_from,
    )


def ruled(header: bytes, **more: object) -> Ruling:
    return judge(facts(header, **more), {})  # type: ignore[arg-type]  # keyword arguments of `facts`


def refused_by(header: bytes, **more: object) -> tuple[str, Why] | None:
    ruling = ruled(header, **more)
    if ruling.decisive is None:
        assert ruling.verdict is Verdict.ACCEPT
        return None
    assert ruling.verdict is Verdict.REFUSE
    return ruling.decisive[0].id, ruling.decisive[1].why


@pytest.mark.parametrize("kind", Kind)
def test_an_ordinary_message_passes_everywhere(kind: Kind) -> None:
    assert refused_by(GOOD + b"Message-ID: <1@acme.example>\r\n", kind=kind) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"To: a@b.dk\r\n", ("C7-FROM", Why.BAD_CONTENT)),
        (b"From: nobody\r\n", ("C7-FROM", Why.BAD_CONTENT)),
        (b"From: a@acme.example, b@evil.example\r\n", ("C7-FROM", Why.NOT_ALLOWED)),
        (b"From: a@acme.example, b@acme.example\r\n", ("C7-FROM", Why.NOT_ALLOWED)),
        (b"From: team: a@acme.example;\r\n", ("C7-FROM", Why.BAD_CONTENT)),
        (b"From: a@evil.example\r\n", ("C7-DOMAIN", Why.NOT_ALLOWED)),
        (b"From: a@acme.example.evil.example\r\n", ("C7-DOMAIN", Why.NOT_ALLOWED)),
        (GOOD + b"From: b@acme.example\r\n", ("C7-SINGLETON", Why.BAD_CONTENT)),
        (GOOD + b"Subject: a\r\nSubject: b\r\n", ("C7-SINGLETON", Why.BAD_CONTENT)),
        (GOOD + b"Sender: x@evil.example\r\n", ("C7-SENDER", Why.NOT_ALLOWED)),
        (GOOD + b"Sender: nobody\r\n", ("C7-SENDER", Why.BAD_CONTENT)),
        (GOOD + b"Sender: a@acme.example, b@acme.example\r\n", ("C7-SENDER", Why.BAD_CONTENT)),
        (b'From: "ceo@bank.example" <printer@acme.example>\r\n', ("C7-NAME", Why.POLICY)),
        (b"From: =?utf-8?q?evil=E2=80=AE?= <printer@acme.example>\r\n", ("C7-NAME", Why.POLICY)),
    ],
)
@pytest.mark.row("E11", "E12")
def test_an_untruthful_header_is_refused_by_its_rule(header: bytes, expected: tuple[str, Why]) -> None:
    assert refused_by(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        b'From: "scan@acme.example" <printer@acme.example>\r\n',  # devices repeat their own address as name
        b'From: "a @ home" <printer@acme.example>\r\n',
        b'From: "me@-.-" <printer@acme.example>\r\n',
        b"From: printer@floor2.acme.example\r\n",
        GOOD + b"Sender: desk@acme.example\r\n",
        GOOD + b"Reply-To: sales@acme.example\r\n",
        GOOD + b"Reply-To: person@elsewhere.example\r\n",  # in shadow until the operator enforces it
        GOOD + b"Reply-To: nobody\r\n",
        b"From: printer@acme.example\r\nDate: Tue, 01 Jan 1980 00:00:00 +0000\r\n",  # a device without a clock
        b"From: printer@acme.example\r\nDate: yesterday\r\n",
        b"From: printer@acme.example\r\nMessage-ID: 12345\r\n",
    ],
)
def test_honest_mail_that_looks_odd_passes_on_a_transactional_server(header: bytes) -> None:
    assert refused_by(header) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"From: a@acme.example\r\nTo: other@example.net\r\n", ("C7-TO", Why.POLICY)),
        (b"From: a@acme.example\r\n", ("C7-TO", Why.POLICY)),
        (b"From: a@acme.example\r\nTo: undisclosed-recipients:;\r\n", ("C7-TO", Why.BAD_CONTENT)),
        (b"From: a@acme.example\r\nTo: you@example.net\r\nDate: x\r\n", ("C7-DATE", Why.BAD_CONTENT)),
        (b"From: a@acme.example\r\nTo: you@example.net\r\nDate: Tue, 10 Nov 2026 12:00:00 +0000\r\n", ("C7-DATE", Why.POLICY)),
        (b"From: a@acme.example\r\nTo: you@example.net\r\nDate: Fri, 27 Nov 2026 12:00:00 +0000\r\n", ("C7-DATE", Why.POLICY)),
        (GOOD + b"Message-ID: 12345\r\n", ("C7-MSGID", Why.BAD_CONTENT)),
    ],
)
def test_a_campaign_is_held_to_more(header: bytes, expected: tuple[str, Why]) -> None:
    assert refused_by(header, kind=Kind.MARKETING) == expected


def test_a_credential_may_be_bound_to_mailboxes_or_a_domain() -> None:
    assert refused_by(GOOD, allow_from=("printer@acme.example",)) is None
    assert refused_by(GOOD, allow_from=("@acme.example",)) is None
    assert refused_by(GOOD, allow_from=("scanner@acme.example",)) == ("C7-ALLOWED", Why.NOT_ALLOWED)


def test_the_operator_decides_how_a_rule_acts_and_shadow_changes_no_answer() -> None:
    foreign = GOOD + b"Reply-To: person@elsewhere.example\r\n"
    shadow = ruled(foreign)
    assert shadow.verdict is Verdict.ACCEPT
    assert shadow.names() == ("C7-REPLYTO/1 shadow",)
    enforced = judge(facts(foreign), {"C7-REPLYTO": "enforce"})
    assert enforced.verdict is Verdict.REFUSE
    off = judge(facts(foreign), {"C7-REPLYTO": "off"})
    assert off.findings == ()


def test_the_first_enforced_finding_decides_and_the_others_are_kept() -> None:
    ruling = ruled(b"From: a@evil.example\r\nSender: b@evil.example\r\n")
    assert ruling.decisive is not None
    assert ruling.decisive[0].id == "C7-DOMAIN"
    assert [rule.id for rule, _, _ in ruling.findings] == ["C7-DOMAIN", "C7-SENDER"]


def test_a_rule_that_crashes_is_named_and_the_others_still_judge() -> None:
    def crash(_: Facts) -> Finding | None:
        raise ZeroDivisionError

    bad = Rule("X", 1, "C7", crash)
    ruling = judge(facts(GOOD), {}, (bad, *RULES))
    assert [rule.id for rule, _, _ in ruling.crashed] == ["X"]
    assert ruling.verdict is Verdict.ACCEPT


def test_a_rule_in_shadow_that_crashes_is_known_to_be_in_shadow() -> None:
    def crash(_: Facts) -> Finding | None:
        raise ZeroDivisionError

    ruling = judge(facts(GOOD), {}, (Rule("X", 1, "C7", crash, default=Mode.SHADOW),))
    assert [mode for _, mode, _ in ruling.crashed] == [Mode.SHADOW]


def test_the_skeleton_is_a_rule_in_shadow_that_finds_nothing() -> None:
    assert _skeleton.RULE.judge(facts(GOOD)) is None
    assert mode_of(_skeleton.RULE, Kind.MARKETING, {}) is Mode.SHADOW


def test_rule_ids_are_unique() -> None:
    ids: list[str] = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
