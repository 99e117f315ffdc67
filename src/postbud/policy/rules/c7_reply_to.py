"""Clause C7: answers go to the sender's own organisation.

A standalone relay has no way to confirm a foreign mailbox by link, so the rule is in shadow until the operator enforces
it. [data of the design] other-organisation Reply-To: 9 of 73 honest bulk, 72 of 95 phishing.
"""

from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Mode, Rule


def _judge(facts: Facts) -> Finding | None:
    field = facts.reply_to
    if not field.present:
        return None
    if field.problem is not None:
        return Finding(Why.BAD_CONTENT, "the Reply-To field is not an address", field.problem)
    if all(facts.covered(entry.mailbox.domain) for entry in field.mailboxes):
        return None
    return Finding(Why.NOT_ALLOWED, "the Reply-To domain is not verified for this account")


RULE = Rule(id="C7-REPLYTO", version=1, clause="C7", judge=_judge, default=Mode.SHADOW)
