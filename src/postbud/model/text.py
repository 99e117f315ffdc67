"""Questions about text that names something: does it hide or imitate?"""

import unicodedata

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "HEBREW", "ARABIC")


def is_deceptive(text: str, *, mixed_scripts: bool = True) -> bool:
    """Tell whether text holds invisible, bidirectional or control characters, or a label of it mixes look-alike scripts.

    Source: UTS 39 s5.2 (restriction levels), reduced to the scripts that imitate Latin.
    """
    if any(unicodedata.category(character) in _HIDDEN_CATEGORIES for character in text):
        return True
    return mixed_scripts and any(_mixes_scripts(label) for label in text.split("."))


def _mixes_scripts(label: str) -> bool:
    found: set[str] = set()
    for character in label:
        if character.isalpha():
            name = unicodedata.name(character, "")
            found.update(script for script in _SCRIPTS if name.startswith(script))
    return len(found) > 1


def printable(octets: bytes | str, limit: int = 500) -> str:
    """Give octets of a peer as one safe line: controls escaped, length bounded. For logs, transcripts and events."""
    text = octets if isinstance(octets, str) else octets.decode("utf-8", "backslashreplace")
    cut = text[:limit]
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
