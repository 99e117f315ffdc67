"""Clause Cn: what the policy says, in one sentence. Copy this file to write a rule.

Anchors: the law or RFC. False positives: the honest mail that looks like a hit, each a test.
"""

from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Mode, Rule


def _judge(_: Facts) -> Finding | None:
    return None


RULE = Rule(id="Cn-NAME", version=1, clause="Cn", judge=_judge, default=Mode.SHADOW)
