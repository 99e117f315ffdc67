"""Clause C7: the display name of From does not pretend another address, and hides nothing (UTS 39, bidi controls)."""

import re2

from postbud.model.mailbox import MailboxError, parse_domain
from postbud.model.refusal import Why
from postbud.model.text import is_deceptive
from postbud.policy.facts import Facts
from postbud.policy.rule import Finding, Rule

_ADDRESS = re2.compile(r"[^\s@<>()\"]+@([^\s@<>()\",;:]+\.[^\s@<>()\",;:]+)")


def _judge(facts: Facts) -> Finding | None:
    for entry in (*facts.from_field.mailboxes, *facts.sender.mailboxes):
        name = entry.display_name
        if not name:
            continue
        if is_deceptive(name, mixed_scripts=False):
            return Finding(Why.POLICY, "the display name of the sender holds invisible or direction-changing characters")
        for claimed in _ADDRESS.findall(name):
            try:
                domain = parse_domain(claimed.rstrip("."))
            except MailboxError:
                continue
            if not facts.covered(domain):
                return Finding(Why.POLICY, "the display name of the sender names an address of somebody else")
    return None


RULE = Rule(id="C7-NAME", version=1, clause="C7", judge=_judge)
