"""`postbud queue`: speaks to the workers' control sockets; when none runs, opens the spools itself under their locks."""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from postbud.app.config import Settings
from postbud.app.control import call, sockets
from postbud.app.queue_ops import read_filter, row
from postbud.app.translate import spool_settings
from postbud.model.ids import to_octets
from postbud.model.settings import SettingsError
from postbud.spool.sqlite import Spool


def run_queue(action: str, parsed: argparse.Namespace, settings: Settings) -> int:
    """Run one action; give the exit status."""
    requests = _requests(action, parsed)
    if action in ("list", "show"):
        rows = asyncio.run(_list(requests, settings))
        rows.sort(key=lambda found: str(found["delivery"]))
        _print(rows[: parsed.limit], as_json=parsed.json, full=action == "show")
        return 0 if rows or action == "list" else 1
    changed = asyncio.run(_steer(requests, settings))
    sys.stdout.write(f"{changed}\n" if parsed.json else f"{action}: {changed} deliveries\n")
    return 0


def _requests(action: str, parsed: argparse.Namespace) -> list[dict[str, Any]]:
    base: dict[str, Any] = {
        "op": "list" if action == "show" else action,
        "limit": parsed.limit,
        **{key: getattr(parsed, key) for key in ("account", "server", "credential", "domain", "held")},
    }
    if not parsed.id:
        return [base]
    requests = []
    for text in parsed.id:
        kind = "message" if text.startswith("msg_") else "delivery" if text.startswith("dlv_") else None
        try:
            to_octets(text)
        except ValueError:
            kind = None
        if kind is None:
            raise SettingsError(f"{text!r} is neither a message id (msg_…) nor a delivery id (dlv_…)")
        requests.append({**base, kind: text})
    return requests


async def _list(requests: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    live = 0
    for socket_path in sockets(settings.data / "run"):
        for request in requests:
            try:
                answer = await call(socket_path, request)
            except OSError:
                break
            live += 1
            _raise_error(answer)
            rows.extend(answer["rows"])
    if live:
        return rows
    for folder in sorted((settings.data / "spool").glob("worker-*")):
        spool = await Spool.open(folder, spool_settings(settings), on_broken=_ignore)
        try:
            for request in requests:
                found = await spool.find(read_filter(request), int(request["limit"]))
                rows.extend(row(message, delivery) for message, delivery in found)
        finally:
            await spool.close()
    return rows


async def _steer(requests: list[dict[str, Any]], settings: Settings) -> int:
    changed = 0
    live = 0
    for socket_path in sockets(settings.data / "run"):
        for request in requests:
            try:
                answer = await call(socket_path, request, 600.0)
            except OSError:
                break
            live += 1
            _raise_error(answer)
            changed += int(answer["changed"])
    if not live:
        raise SettingsError("no worker runs here; start the relay to steer its queue (list and show work without it)")
    return changed


def _raise_error(answer: dict[str, Any]) -> None:
    if "error" in answer:
        raise SettingsError(str(answer["error"]))


def _ignore(_: str) -> None:
    """A spool that breaks while it is only read has nothing to stop."""


def _print(rows: list[dict[str, Any]], *, as_json: bool, full: bool) -> None:
    if as_json:
        for found in rows:
            sys.stdout.write(json.dumps(found) + "\n")
        return
    if full:
        for found in rows:
            for key, value in found.items():
                sys.stdout.write(f"{key:>14}  {value}\n")
            sys.stdout.write("\n")
        return
    if not rows:
        sys.stdout.write("the queue is empty\n")
        return
    now = time.time()
    for found in rows:
        wait = max(0, int(found["due_at"] - now))
        state = f"held by {', '.join(found['held_by'])}" if found["held_by"] else f"due in {wait} s" if wait else "due"
        sys.stdout.write(
            f"{found['delivery']}  {found['account']}  {found['recipient']}  {state}  "
            f"attempts {found['attempts']}  {found['last_reply'][:100]}\n"
        )
