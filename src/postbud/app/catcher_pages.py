"""The catcher's pages: what was caught, as JSON for programs and as a plain list for people. Loopback only, no script.

Everything that a message brings is written as text, never as markup: the list is HTML-escaped, raw messages are text/plain.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from html import escape
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from postbud.app.catcher import WORLD, Catcher, refuse_other_hosts
from postbud.app.caught import Caught, CaughtBox
from postbud.app.config import Settings
from postbud.app.programs import end_with_supervisor, say_ready, stop_signals

_SHOWN = 500
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .75rem .35rem 0;"
    "border-bottom:1px solid #8884;vertical-align:top;overflow-wrap:anywhere}code{font-size:.9em}"
)


def application(box: CaughtBox) -> Starlette:
    """Give the pages of a box."""

    async def listing(_: Request) -> Response:
        return Response(msgspec.json.encode(box.listed()), media_type="application/json", headers=_HEADERS)

    async def raw(request: Request) -> Response:
        octets = await asyncio.to_thread(box.raw, request.path_params["id"])
        if octets is None:
            return Response("no such message\n", 404, media_type="text/plain", headers=_HEADERS)
        return Response(octets, media_type="text/plain", headers=_HEADERS)

    async def page(_: Request) -> Response:
        return Response(page_of(box.listed()), media_type="text/html", headers=_HEADERS)

    return Starlette(
        routes=[Route("/", page), Route("/messages.json", listing), Route("/messages/{id:str}.eml", raw)],
    )


def page_of(caught: list[Caught]) -> str:
    """Give the list for people."""
    rows = "".join(
        f"<tr><td>{datetime.fromtimestamp(one.at, UTC):%H:%M:%S}</td><td>{escape(one.sender) or '&lt;&gt;'}</td>"
        f"<td>{escape(', '.join(one.recipients[:5]))}{' …' if len(one.recipients) > 5 else ''}</td>"
        f"<td><a href='messages/{escape(one.id)}.eml'>{escape(one.subject) or '(no subject)'}</a></td></tr>"
        for one in caught[:_SHOWN]
    )
    answers = "".join(
        f"<li><code>{domain}</code>: {why.reply_code} {why.enhanced} {escape(text)}</li>"
        for domain, (why, text) in WORLD.items()
    )
    empty = "<p>Nothing yet. Every message of the demo ends here.</p>"
    table = f"<table><tr><th>UTC</th><th>from</th><th>to</th><th>subject</th></tr>{rows}</table>"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<meta http-equiv='refresh' content='5'><title>Postbud demo: caught mail</title><style>{_STYLE}</style>"
        f"<h1>Caught mail</h1>{table if rows else empty}<h2>Domains that do not take everything</h2><ul>{answers}"
        "<li><code>slow.example</code>: takes a few seconds</li>"
        "<li><code>late.example</code>: takes it, and bounces it some seconds later</li></ul></html>"
    )


async def run_catcher(settings: Settings) -> int:
    """Catch and show until told to stop."""
    table = settings.config.demo
    box = CaughtBox(settings.data / "caught", table.messages)
    inbound = next((one.address for one in settings.config.relay.listener if one.role == "inbound"), "")
    host, _, port = table.smtp_address.rpartition(":")
    http_host, _, http_port = table.http_address.rpartition(":")
    refuse_other_hosts(http_host)
    server = _Server(
        uvicorn.Config(
            application(box), host=http_host.strip("[]"), port=int(http_port), log_level="warning", access_log=False,
            lifespan="off", ws="none", proxy_headers=False, server_header=False, timeout_graceful_shutdown=2,
        )
    )  # fmt: skip

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop)
    end_with_supervisor()
    async with asyncio.TaskGroup() as group:
        catcher = Catcher(box, inbound)
        await catcher.start(host, int(port), group)
        serving = group.create_task(server.serve())
        while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn tells by an attribute only)
            await asyncio.sleep(0.02)
        say_ready()
        await serving
        catcher.stop()
    return 0


class _Server(uvicorn.Server):
    """A server whose signals `run_catcher` listens to."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals alone."""
        yield
