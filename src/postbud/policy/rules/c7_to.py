"""Clause C7: a campaign's visible address is the one it goes to. In shadow elsewhere: every Bcc breaks it."""

from postbud.model.account import Kind
from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule


def _judge(facts: Facts) -> Finding | None:
    if facts.kind is not Kind.MARKETING:
        return None
    if facts.to.problem is not None or facts.cc.problem is not None:
        return Finding(Why.BAD_CONTENT, "the To or Cc field is not a list of addresses")
    visible = {entry.mailbox.key() for entry in (*facts.to.mailboxes, *facts.cc.mailboxes)}
    if visible == {mailbox.key() for mailbox in facts.recipients}:
        return None
    return Finding(Why.POLICY, "the To field of a campaign names the recipient and nobody else")


RULE = Rule(id="C7-TO", version=1, clause="C7", judge=_judge, shadow_on=frozenset({Kind.TRANSACTIONAL, Kind.SANDBOX}))
