"""Clause C7: the Date is sane, 7 days back to 1 day ahead. In shadow elsewhere: devices and offline clients queue."""

from datetime import timedelta

from postbud.model.account import Kind
from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule

_OLDEST = timedelta(days=7)
_NEWEST = timedelta(days=1)


def _judge(facts: Facts) -> Finding | None:
    if facts.date is None:
        return None  # added by the fix-ups
    if facts.date_at is None:
        return Finding(Why.BAD_CONTENT, "the Date field is no date")
    if not -_OLDEST <= facts.date_at - facts.received_at <= _NEWEST:
        return Finding(Why.POLICY, "the Date field is more than 7 days old or more than a day ahead")
    return None


RULE = Rule(id="C7-DATE", version=1, clause="C7", judge=_judge, shadow_on=frozenset({Kind.TRANSACTIONAL, Kind.SANDBOX}))
