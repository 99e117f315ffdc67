"""Clause C7: a Sender field names the account too, not a third party (RFC 5322 s3.6.2)."""

from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule


def _judge(facts: Facts) -> Finding | None:
    field = facts.sender
    if not field.present:
        return None
    if field.problem is not None or len(field.mailboxes) != 1:
        return Finding(Why.BAD_CONTENT, "the Sender field is not one address", field.problem or "")
    if not facts.covered(field.mailboxes[0].mailbox.domain):
        return Finding(Why.NOT_ALLOWED, "the Sender domain is not verified for this account")
    return None


RULE = Rule(id="C7-SENDER", version=1, clause="C7", judge=_judge)
