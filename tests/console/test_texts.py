"""Every text of the pages is there in Danish, with the same places for values."""

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from tests.console.texts import CONSOLE, missing

_PLACE = re.compile(r"%(?:\((\w+)\))?([sd%])")
PARTS = sorted((CONSOLE / "locale" / "da" / "parts").glob("*.po"))


def test_every_text_is_there_in_danish() -> None:
    assert [f"{text.place}: {text.identity[1]}" for text in missing()] == []


@pytest.mark.parametrize("part", PARTS, ids=lambda path: path.stem)
def test_a_translation_has_the_places_that_the_text_has(part: Path) -> None:
    with part.open("rb") as file:
        catalog = read_po(file)
    for message in catalog:
        if not message.id:
            continue
        originals = message.id if isinstance(message.id, tuple) else (message.id,)
        translations = message.string if isinstance(message.string, tuple) else (message.string,)
        wanted = {frozenset(_PLACE.findall(text)) for text in originals}
        for text in translations:
            assert text, message.id
            assert frozenset(_PLACE.findall(text)) in wanted, message.id
