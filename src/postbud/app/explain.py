"""`postbud queue explain DOMAIN`: where its mail goes, which limits hold there and why, and what each worker does now."""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from postbud.app.config import Settings
from postbud.app.control import call, sockets
from postbud.app.parts import Parts
from postbud.egress.routing import Routing
from postbud.model.mailbox import MailboxError, parse_domain
from postbud.model.settings import SettingsError


async def explain(parts: Parts, domain: str) -> dict[str, Any]:
    """Give one worker's view of a domain."""
    try:
        name = parse_domain(domain)
    except MailboxError as error:
        return {"error": f"{domain!r} is no domain: {error.why}"}
    routing = await parts.egress.route(name, None)
    if not isinstance(routing, Routing):
        return {"domain": name, "outcome": type(routing).__name__.lower(), "why": routing.why, "enhanced": routing.enhanced}
    return {
        "domain": name,
        "site": routing.site,
        "route": routing.route.match if routing.route is not None else None,
        "hops": [f"{hop.host}:{hop.port}" for hop in routing.hops],
        "tls": routing.tls.value,
        "limits": [
            {"name": origin.key, "value": origin.value, "rule": origin.rule} for origin in parts.egress.explain(routing)
        ],
        "worker": parts.index,
        "lanes": [lane for lane in parts.scheduler.lanes() if lane["site"] == routing.site],
    }


def run_explain(parsed: argparse.Namespace, settings: Settings) -> int:
    """Ask every worker and print; the exit status is 1 when there is no way to the domain."""
    views = asyncio.run(_ask(parsed.domain, settings))
    if parsed.json:
        for view in views:
            sys.stdout.write(json.dumps(view) + "\n")
    else:
        sys.stdout.write(text_of(views, time.time()))
    return 0 if all("site" in view for view in views) else 1


async def _ask(domain: str, settings: Settings) -> list[dict[str, Any]]:
    views = []
    for socket_path in sockets(settings.data / "run"):
        try:
            answer = await call(socket_path, {"op": "explain", "domain": domain})
        except OSError:
            continue
        if "error" in answer:
            raise SettingsError(str(answer["error"]))
        views.append(answer)
    if not views:
        raise SettingsError("no worker runs here; start the relay to ask it")
    return views


def text_of(views: list[dict[str, Any]], now: float) -> str:
    """Lay the workers' answers out for people."""
    first = next((view for view in views if "site" in view), views[0])
    if "site" not in first:
        return f"{first['domain']}: {first['outcome']} {first['enhanced']}, {first['why']}\n"
    lines = [
        f"domain    {first['domain']}",
        f"site      {first['site']}" + (f"  (static route {first['route']})" if first["route"] else "  (by MX)"),
        f"next hops {', '.join(first['hops'])}",
        f"TLS       {first['tls']}",
        "limits    per source, all workers of this node together",
    ]
    for limit in first["limits"]:
        value = "none" if limit["name"] == "messages_per_second" and not limit["value"] else f"{limit['value']:g}"
        lines.append(f"  {limit['name']:<28}{value:<8}{limit['rule']}")
    lanes = [(view["worker"], lane) for view in views for lane in view.get("lanes", ())]
    lines.append("now" if lanes else "now       no worker has mail for it in memory")
    for worker, lane in lanes:
        lines.extend(_lane(worker, lane, now))
    return "\n".join(lines) + "\n"


def _lane(worker: int, lane: dict[str, Any], now: float) -> list[str]:
    connections = f"{lane['connections']} connections of {lane['connections_allowed']} allowed now"
    lines = [f"  worker {worker}, source {lane['source']}: {lane['ready']} ready, {connections}"]
    if lane["messages_per_second"] is not None:
        lines.append(f"    at most {lane['messages_per_second']:.3g} messages a second, growing: the site said {lane['why']!r}")
    for key, words in (("paused_until", "paused"), ("dead_until", "left alone, no connection")):
        if lane[key] is not None:
            lines.append(f"    {words} for {max(0, round(lane[key] - now))} s more: {lane['why']}")
    for account, stop in lane["stopped_accounts"].items():
        lines.append(f"    {account} waits {max(0, round(stop['until'] - now))} s more: {stop['why']}")
    return lines
