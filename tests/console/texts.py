"""Finds every text of the console that can be translated: in templates as Django reads them, in Python by its calls."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

CONSOLE = Path(__file__).resolve().parents[2] / "src" / "postbud" / "console"
KEYWORDS = {
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "_": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
Identity = tuple[str | None, str | tuple[str, ...]]


@dataclass(frozen=True)
class Text:
    """A text, and where it is."""

    identity: Identity
    place: str


def texts(folder: Path = CONSOLE) -> Iterator[Text]:
    """Give every text below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".html", ".txt"}:
            source = templatize(path.read_text(), origin=str(path))
        elif path.suffix == ".py" and "migrations" not in path.parts:
            source = path.read_text()
        else:
            continue
        for line, message, _comments, context in extract(
            "python", io.BytesIO(source.encode()), keywords=KEYWORDS, options={"encoding": "utf-8"}
        ):
            if message:
                yield Text((context, message), f"{path.relative_to(folder)}:{line}")


def translated(language: str = "da") -> dict[Identity, str | tuple[str, ...]]:
    """Give what a language's parts translate."""
    known: dict[Identity, str | tuple[str, ...]] = {}
    for part in sorted((CONSOLE / "locale" / language / "parts").glob("*.po")):
        with part.open("rb") as file:
            catalog: Catalog = read_po(file, locale=language)
        for message in catalog:
            whole = message.string and (isinstance(message.string, str) or all(message.string))
            if message.id and whole and not message.fuzzy:
                known[message.context, message.id if isinstance(message.id, str) else tuple(message.id)] = message.string
    return known


def missing(language: str = "da") -> list[Text]:
    """Give the texts that a language lacks, each once."""
    known = translated(language)
    lacking: dict[Identity, Text] = {}
    for text in texts():
        if text.identity not in known:
            lacking.setdefault(text.identity, text)
    return list(lacking.values())
