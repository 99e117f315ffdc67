"""Clause C7: the From field names one mailbox at a domain that the account has verified.

Anchors: RFC 5322 s3.6.2, CAN-SPAM 7704(a)(1), RFC 9989 (alignment starts from the From domain).
"""

from postbud.model.refusal import Why
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule


def _one_mailbox(facts: Facts) -> Finding | None:
    field = facts.from_field
    if not field.present:
        return Finding(Why.BAD_CONTENT, "no From field; a message says who sends it")
    if field.problem is not None:
        return Finding(Why.BAD_CONTENT, "the From field is not an address", field.problem)
    if len(field.mailboxes) > 1 and not all(facts.covered(entry.mailbox.domain) for entry in field.mailboxes):
        return Finding(Why.NOT_ALLOWED, "the From field names a mailbox at a domain that is not verified for this account")
    if len(field.mailboxes) != 1:
        return Finding(Why.NOT_ALLOWED, "the From field names more than one mailbox; send as one")
    return None


def _own_domain(facts: Facts) -> Finding | None:
    foreign = [entry.mailbox for entry in facts.from_field.mailboxes if not facts.covered(entry.mailbox.domain)]
    if not foreign:
        return None
    return Finding(Why.NOT_ALLOWED, "the From domain is not verified for this account", f"From {foreign[0].domain}")


def _allowed_by_credential(facts: Facts) -> Finding | None:
    if not facts.allow_from:
        return None
    for entry in facts.from_field.mailboxes:
        key = entry.mailbox.key()
        if key not in facts.allow_from and f"@{entry.mailbox.domain}" not in facts.allow_from:
            return Finding(Why.NOT_ALLOWED, "this credential may not send from that mailbox", f"From {key}")
    return None


RULE = Rule(id="C7-FROM", version=1, clause="C7", judge=_one_mailbox)
DOMAIN = Rule(id="C7-DOMAIN", version=1, clause="C7", judge=_own_domain)
ALLOWED = Rule(id="C7-ALLOWED", version=1, clause="C7", judge=_allowed_by_credential)
