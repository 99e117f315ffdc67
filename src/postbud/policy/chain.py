"""The chain: every rule in order, then one ruling. A rule in shadow never changes the answer.

A rule that crashes is a bug of ours: the ruling says so (`crashed`), and the caller answers by the kind of server
(451 on marketing, the operator's choice elsewhere).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from postbud.model.account import Kind
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Mode, Rule
from postbud.policy.rules import c7_date, c7_from, c7_message_id, c7_name, c7_reply_to, c7_sender, c7_singletons, c7_to

RULES: tuple[Rule, ...] = (
    c7_singletons.RULE,
    c7_from.RULE,
    c7_from.DOMAIN,
    c7_from.ALLOWED,
    c7_sender.RULE,
    c7_reply_to.RULE,
    c7_name.RULE,
    c7_to.RULE,
    c7_date.RULE,
    c7_message_id.RULE,
)


class Verdict(Enum):
    """What the chain says of a message."""

    ACCEPT = "accept"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict with everything that was found, also in shadow."""

    verdict: Verdict
    decisive: tuple[Rule, Finding] | None
    findings: tuple[tuple[Rule, Mode, Finding], ...] = ()
    crashed: tuple[tuple[Rule, Mode, Exception], ...] = ()

    def names(self) -> tuple[str, ...]:
        """Give `rule-id/version mode` of each finding, for events and logs."""
        return tuple(f"{rule.id}/{rule.version} {mode.value}" for rule, mode, _ in self.findings)


def mode_of(rule: Rule, kind: Kind, modes: Mapping[str, str]) -> Mode:
    """Tell how a rule acts on a kind of server: the operator's word, else the rule's own default."""
    said = modes.get(rule.id)
    if said is not None:
        return Mode(said)
    return Mode.SHADOW if kind in rule.shadow_on else rule.default


def judge(facts: Facts, modes: Mapping[str, str], rules: Iterable[Rule] = RULES) -> Ruling:
    """Judge one message. The first enforced finding decides; the others are kept beside it."""
    findings: list[tuple[Rule, Mode, Finding]] = []
    crashed: list[tuple[Rule, Mode, Exception]] = []
    decisive: tuple[Rule, Finding] | None = None
    for rule in rules:
        mode = mode_of(rule, facts.kind, modes)
        if mode is Mode.OFF:
            continue
        try:
            finding = rule.judge(facts)
        except Exception as error:  # noqa: BLE001 (the one boundary between the rules and the mail flow)
            crashed.append((rule, mode, error))
            continue
        if finding is None:
            continue
        findings.append((rule, mode, finding))
        if mode is Mode.ENFORCE and decisive is None:
            decisive = (rule, finding)
    verdict = Verdict.REFUSE if decisive is not None else Verdict.ACCEPT
    return Ruling(verdict, decisive, tuple(findings), tuple(crashed))
