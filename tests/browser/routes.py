"""The names of our addresses that answer GET, read from the resolver in a process of its own: no Django in browser tests."""

import json
import subprocess
import sys

_WALK = """
import json, os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")
import django
django.setup()
from django.urls import URLResolver, get_resolver
from postbud.console.accounts.permissions import access_of
def walk(resolver, spaces=()):
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from walk(pattern, (*spaces, pattern.namespace) if pattern.namespace else spaces)
        elif (access := access_of(pattern.callback)) is not None and "GET" in access.methods and access.scope != "key":
            yield ":".join((*spaces, pattern.name))
print(json.dumps(sorted(walk(get_resolver()))))
"""


def page_routes() -> set[str]:
    """Give the names of addresses of ours that can be looked at: programs have their own."""
    done = subprocess.run([sys.executable, "-c", _WALK], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))
