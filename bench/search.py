"""The message log's searches and the page of statistics, on a database that `bench.ingest --folder DIR` filled.

One account owns nine tenths of it.

    python -m bench.search --database sqlite|postgresql --folder DIR [--rounds 60]

Each kind of search is asked many times with values drawn from the log, through the page as a browser gets it (query, rows,
HTML), in this process. The first round of each kind does not count. Times in ms.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import msgspec
from bench.events import BIG_ACCOUNT
from bench.ingest import kept_server

from postbud.console.configuration import ConsoleSettings

_DAY = 86_400


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=["sqlite", "postgresql"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", default="", help="kinds whose name begins so")
    given = parser.parse_args()
    with kept_server(given.folder, given.database) as url:
        os.environ["POSTBUD_CONSOLE"] = msgspec.json.encode(ConsoleSettings(data=str(given.folder), database=url)).decode()
        os.environ["DJANGO_SETTINGS_MODULE"] = "postbud.console.settings"
        import django  # noqa: PLC0415  # only now it knows its database

        django.setup()
        print(json.dumps(measure(given.rounds, given.only), indent=1))


def measure(rounds: int, only: str = "") -> dict[str, object]:
    """Ask every kind of search and give its times."""
    from django.test import Client  # noqa: PLC0415
    from django.test.utils import override_settings  # noqa: PLC0415

    from postbud.console.mail.models import DeliveryRow, EventRow  # noqa: PLC0415

    owner = _owner()
    dice = random.Random(7)
    sample = list(DeliveryRow.objects.filter(account=BIG_ACCOUNT).order_by("-message")[: 200 * 50 : 50])
    oldest = DeliveryRow.objects.filter(account=BIG_ACCOUNT).order_by("message").first()
    assert oldest is not None
    figures: dict[str, object] = {
        "events": EventRow.objects.count(),
        "events of the account": EventRow.objects.filter(account=BIG_ACCOUNT).count(),
    }
    span = time.time() - oldest.message_at.timestamp()

    def within() -> dict[str, str]:
        start = time.time() - dice.random() * span
        return {"start": _instant(start), "end": _instant(start + dice.choice([1, 3, 7]) * _DAY)}

    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "newest": dict,
        "time": within,
        "time and exact mailbox": lambda: within() | {"mailbox": dice.choice(sample).mailbox},
        "exact mailbox": lambda: {"q": dice.choice(sample).mailbox},
        "time and state bounced": lambda: within() | {"state": "bounced"},
        "time and state delivered": lambda: within() | {"state": "delivered"},
        "time and still waiting": lambda: within() | {"state": "waiting"},
        "part of text, common, 31 days": lambda: {"q": dice.choice(["invoice", "greylist", "No such user"]), "period": "31d"},
        "part of text, rare, 31 days": lambda: {"q": dice.choice(sample).subject[-6:], "period": "31d"},
        "part of text, absent, 31 days": lambda: {"q": f"absent {dice.randrange(10**6)}", "period": "31d"},
        "reply code 550 and server": lambda: {"code": "550", "server": dice.choice(sample).server, "period": "31d"},
    }
    statistics_kinds = {
        f"statistics, {period}, by {by}": (lambda period=period, by=by: {"period": period, "by": by})
        for period in ("24h", "7d", "30d", "90d", "12m")
        for by in ("server", "credential", "site", "class")
    }
    kinds |= statistics_kinds
    with override_settings(ALLOWED_HOSTS=["*"]):
        client = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
        client.force_login(owner, backend="allauth.account.auth_backends.AuthenticationBackend")
        for name, draw in kinds.items():
            if not name.startswith(only):
                continue
            page = "statistics" if name in statistics_kinds else "messages"
            took = []
            for number in range(rounds + 1):
                address = f"/a/{BIG_ACCOUNT}/{page}/?{urlencode(draw())}"
                begun = time.perf_counter()
                answer = client.get(address, headers={"HX-Target": "results"})
                if number:
                    took.append((time.perf_counter() - begun) * 1000)
                assert answer.status_code == 200, (address, answer.status_code)
            took.sort()
            figures[name] = {
                "p50": round(statistics.median(took)), "p95": round(took[int(len(took) * 0.95)]), "most": round(took[-1]),
            }  # fmt: skip
    return figures


def _owner() -> object:
    """Give the big account's owner; make both, and its servers and devices, once."""
    from postbud.console.accounts import audit, people  # noqa: PLC0415
    from postbud.console.accounts.models import Person  # noqa: PLC0415
    from postbud.console.accounts.services import create_account  # noqa: PLC0415
    from postbud.console.servers.services import create_server  # noqa: PLC0415

    actor = audit.Actor("command", "bench")
    found = Person.objects.filter(email="search@postbud.example").first()
    person = found or people.create_person(actor, "search@postbud.example", "four quiet otters read")
    if found is None:
        create_account(actor, "Bench", owner=person, account_id=BIG_ACCOUNT)
        for number in range(3):
            create_server(actor, BIG_ACCOUNT, f"Server {number}", "transactional", server_id=f"srv_{BIG_ACCOUNT[5:]}_{number}")
    return person


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(at))


if __name__ == "__main__":
    main()
