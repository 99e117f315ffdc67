"""The console's end of the link as an ASGI application of its own: eight flows over HTTP, dialled by relays.

Owns nothing but the order of start: Django first, then what needs its models. Run by `postbud serve` (uvicorn, on a Unix socket
and, between machines, on a TLS address), never by the pages' server.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "postbud.console.settings")

import django

django.setup()

from postbud.console.link.endpoints import make_application  # noqa: E402  # models need Django's setup

application = make_application()
