"""Clause C7: a field that may stand once stands once; else each reader may believe another one (RFC 5322 s3.6)."""

from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule


def _judge(facts: Facts) -> Finding | None:
    if not facts.duplicates:
        return None
    names = ", ".join(name.title() for name in facts.duplicates[:3])
    return Finding(Why.BAD_CONTENT, f"more than one {names} field; send each once")


RULE = Rule(id="C7-SINGLETON", version=1, clause="C7", judge=_judge)
