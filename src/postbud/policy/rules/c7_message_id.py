"""Clause C7: the Message-ID has the form of one (RFC 5322 s3.6.4). In shadow elsewhere: devices write what they like."""

import re2

from postbud.model.account import Kind
from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule

_FORM = re2.compile(r"<[^\s<>@]+@[^\s<>@]+>")
_MAX_LENGTH = 998


def _judge(facts: Facts) -> Finding | None:
    if facts.message_id is None:
        return None  # added by the fix-ups
    if len(facts.message_id) <= _MAX_LENGTH and _FORM.fullmatch(facts.message_id):
        return None
    return Finding(Why.BAD_CONTENT, "the Message-ID field is not <left@right>")


RULE = Rule(id="C7-MSGID", version=1, clause="C7", judge=_judge, shadow_on=frozenset({Kind.TRANSACTIONAL, Kind.SANDBOX}))
