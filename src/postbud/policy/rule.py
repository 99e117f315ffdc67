"""What a rule is: an id, a version, a clause, how it acts by default, and a pure question to the facts.

Adding one: copy `rules/_skeleton.py`, write its test and its line in `docs/policy/rules.md`, name it in `chain.RULES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from postbud.model.account import Kind
from postbud.model.refusal import Why
from postbud.policy.facts import Facts


class Mode(Enum):
    """How the operator lets a rule act."""

    OFF = "off"
    SHADOW = "shadow"  # found and kept, changes no answer
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's no: what the sender hears, what our log keeps."""

    why: Why
    public: str
    private: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `judge` gives None when there is nothing to find."""

    id: str
    version: int
    clause: str
    judge: Callable[[Facts], Finding | None]
    default: Mode = Mode.ENFORCE
    shadow_on: frozenset[Kind] = frozenset()  # kinds of server where the default is shadow
