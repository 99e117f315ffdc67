"""Which file, named by its content, an asset of the pages is (`frontend/build.js` writes the manifest).

Does not know how files are served. Invariant: an asset that was not built is an error that says what to do, never a page
without styles.
"""

import json
from functools import cache
from pathlib import Path

from django.templatetags.static import static

_FOLDER = Path(__file__).parent / "static" / "ui"


class AssetsNotBuiltError(RuntimeError):
    """The static files are not there."""

    def __init__(self) -> None:
        super().__init__("the pages' static files are not built: run `make pages`")


def url(name: str) -> str:
    """Give the address of an asset.

    Raises:
        AssetsNotBuiltError: nothing was built.
        KeyError: there is no asset of that name.
    """
    return static(f"ui/{_manifest()[name]}")


@cache
def _manifest() -> dict[str, str]:
    try:
        manifest: dict[str, str] = json.loads((_FOLDER / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise AssetsNotBuiltError from error
    return manifest
