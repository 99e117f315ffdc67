"""Stub, replaced when servers exist."""

from collections.abc import Mapping


def note_uses(used: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    """Note."""
    del used
