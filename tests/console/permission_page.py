"""Writes `docs/permissions.md`: every address of the pages, and who may call it, as the views declare it.

`python -m tests.console.permission_page --write` writes the page; a test compares it.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django

PAGE = Path(__file__).resolve().parents[2] / "docs" / "permissions.md"
_HEAD = """# Who may call what

Made from what the views declare (`python -m tests.console.permission_page --write`); a test keeps it true, another
calls every address in every role. Whoever is no member of an account gets the answer that an unknown address gets.
Operators may do everything in every account; what they do stands in its audit log. What a form changes is said with
POST; GET changes nothing. Where `view` stands beside POST, everybody may look and the form asks for more: `servers`
for a credential, `people` for people, `account` for settings.

"""
_GROUP = re.compile(r"\(\?P<([a-z0-9]+)>(?:[^()]|\([^()]*\))*\)|[\^$]")  # of an address that is a regular expression
_SCOPES = {
    "public": "anybody",
    "person": "whoever is signed in",
    "operator": "operators",
    "key": "programs, with an API key: what their server sent",
}


def patterns(resolver: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every address of the pages with its pattern."""
    from django.urls import URLResolver, get_resolver  # after Django's setup

    for pattern in (resolver or get_resolver()).url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, path)
        else:
            yield path, pattern


def page() -> str:
    """Give the page as it should be."""
    from postbud.console.accounts.models import Role  # after Django's setup
    from postbud.console.accounts.permissions import FOREIGN_ROUTES, PERMISSIONS, access_of  # as above

    roles = [Role.VIEWER, Role.DEVELOPER, Role.ADMIN, Role.OWNER]
    members, others = [], []
    for path, pattern in patterns():
        access = access_of(pattern.callback)
        shown = "/" + re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"<\1>", path.removesuffix("\\Z"))
        shown = re.sub(
            r"\(\?P<([a-z0-9]+)>(?:[^()]|\([^()]*\))*\)|[\^$]", lambda found: f"<{found[1]}>" if found[1] else "", shown
        )
        if access is not None and access.permission is not None:
            ticks = " | ".join("✓" if access.permission in PERMISSIONS[role] else "" for role in roles)
            members.append(f"| `{shown}` | {_methods(access.methods)} | {access.permission.value} | {ticks} |")
        else:
            scope = access.scope if access is not None else FOREIGN_ROUTES.get(pattern.name, "nobody")
            methods = _methods(access.methods) if access is not None else "GET, POST"
            others.append(f"| `{shown}` | {methods} | {_SCOPES[scope]} |")
    lines = ["## In an account", "", "| address | methods | permission | viewer | developer | admin | owner |"]
    lines += ["|---|---|---|:-:|:-:|:-:|:-:|", *sorted(members), "", "## Elsewhere", ""]
    lines += ["| address | methods | who |", "|---|---|---|", *sorted(set(others))]
    return _HEAD + "\n".join(lines) + "\n"


def _methods(methods: tuple[str, ...]) -> str:
    return ", ".join(method for method in methods if method != "HEAD")


def main() -> int:
    """Write the page when asked, else print it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")
    django.setup()
    if "--write" in sys.argv:
        PAGE.write_text(page(), "utf-8")
    else:
        print(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
