"""`postbud account|person|plan|server|credential|domain|node|audit …`: the words of administration.

Owns the words and how answers are printed; what they do is in `clerk`, through the console's own services, and only then is
Django loaded. Relays that run hear of it within a second. Answers are lines for people, or with `--json` one object a line.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from postbud.app import demo
from postbud.app.starting import settings_of
from postbud.model.settings import SettingsError

Row = dict[str, Any]
_ROLES = ("owner", "admin", "developer", "viewer")
_KINDS = ("transactional", "marketing", "sandbox")
_CREDENTIAL_KINDS = ("smtp", "network", "api")
_LIMITS = ("--month-allowance", "--hourly-cap", "--servers-limit", "--log-days", "--content-days")

# object → action → (help, arguments: name, then options of argparse)
Argument = tuple[str, dict[str, Any]]
_WHO: Argument = ("account", {"help": "the account's id"})
_PERSON: Argument = ("person", {"help": "e-mail address or id"})
_SERVER: Argument = ("server", {"help": "the server's id"})
_CREDENTIAL: Argument = ("credential", {"help": "the credential's id"})
_DOMAIN: Argument = ("domain", {"help": "the domain's id"})
_PASSWORD: Argument = (
    "--password-stdin",
    {"action": "store_true", "help": "read the password from the first line of standard input"},
)
_CAP: Argument = ("--hourly-cap", {"type": int, "help": "recipients an hour"})
_OF_ACCOUNT: Argument = ("--account", {"help": "only this account's"})
ACTIONS: dict[str, dict[str, tuple[str, tuple[Argument, ...]]]] = {
    "account": {
        "list": ("list accounts", ()),
        "create": (
            "make an account",
            (
                ("name", {}),
                ("--owner", {"help": "e-mail address of the person who owns it"}),
                ("--plan", {"help": "name or id of its plan"}),
            ),
        ),
        "show": ("show an account", (_WHO,)),
        "pause": ("take no mail and send none, until resumed", (_WHO,)),
        "resume": ("end a pause", (_WHO,)),
        "block": (
            "stop an account and all its servers",
            (_WHO, ("--reference", {"required": True, "help": "what its people quote"})),
        ),
        "unblock": ("lift a block", (_WHO,)),
        "close": ("end an account; its queued mail is cancelled", (_WHO,)),
        "limits": ("give it another plan, or an hourly cap of its own", (_WHO, ("--plan", {"help": "name or id"}), _CAP)),
    },
    "person": {
        "list": ("list people", (_OF_ACCOUNT,)),
        "create": (
            "make a person, whose address you vouch for",
            (
                ("email", {}),
                ("--name", {"default": ""}),
                ("--operator", {"action": "store_true", "help": "who runs this installation"}),
                _PASSWORD,
            ),
        ),
        "join": (
            "make somebody a member of an account",
            (_PERSON, ("--account", {"required": True}), ("--role", {"required": True, "choices": _ROLES})),
        ),
        "operator": ("make somebody an operator", (_PERSON, ("--off", {"action": "store_true", "help": "end it"}))),
        "password": ("give somebody a password, and end their sessions", (_PERSON, _PASSWORD)),
        "deactivate": ("let somebody in no more", (_PERSON,)),
        "activate": ("let somebody in again", (_PERSON,)),
    },
    "plan": {
        "list": ("list plans", ()),
        "create": ("make a plan", (("name", {}), *((name, {"type": int}) for name in _LIMITS))),
        "update": (
            "change a plan; its accounts have the limits at once",
            (
                ("plan", {"help": "name or id"}),
                ("--name", {}),
                *((name, {"help": "a number, or none"}) for name in _LIMITS[:3]),
                *((name, {"type": int}) for name in _LIMITS[3:]),
            ),
        ),
    },
    "server": {
        "list": ("list servers", (_OF_ACCOUNT,)),
        "create": (
            "make a server",
            (("name", {}), ("--account", {"required": True}), ("--kind", {"choices": _KINDS, "default": "transactional"})),
        ),
        "rename": ("give a server another name", (_SERVER, ("name", {}))),
        "pause": ("take no mail and send none, until resumed", (_SERVER,)),
        "resume": ("end a pause", (_SERVER,)),
    },
    "credential": {
        "list": ("list credentials", (_OF_ACCOUNT, ("--server", {"help": "only this server's"}))),
        "create": (
            "make a credential; its secret is shown once",
            (
                ("name", {"help": "of the device or program"}),
                ("--server", {"required": True}),
                ("--kind", {"choices": _CREDENTIAL_KINDS, "default": "smtp"}),
                ("--network", {"action": "append", "default": [], "help": "may be repeated"}),
                ("--allow-from", {"action": "append", "default": [], "help": "a mailbox, or @domain; may be repeated"}),
                _CAP,
            ),
        ),
        "rotate": (
            "make a new secret, shown once",
            (_CREDENTIAL, ("--overlap-hours", {"type": float, "default": 24.0, "help": "how long the former one works (24)"})),
        ),
        "revoke": ("let a device in no more, and send nothing of it that waits", (_CREDENTIAL,)),
        "pause": ("let a device wait until resumed", (_CREDENTIAL,)),
        "resume": ("end a pause", (_CREDENTIAL,)),
    },
    "domain": {
        "list": ("list domains", (_OF_ACCOUNT,)),
        "add": ("make a domain with its keys", (("name", {}), ("--account", {"required": True}))),
        "verify": ("let mail come from it, by your word", (_DOMAIN,)),
        "keys": ("show the DNS records of its keys", (_DOMAIN,)),
        "rotate": ("make new keys and sign with them", (_DOMAIN,)),
        "lose": ("let no mail come from it any more", (_DOMAIN,)),
        "remove": ("forget it and its keys", (_DOMAIN,)),
    },
    "node": {
        "list": ("list machines with relays", ()),
        "add": ("let a machine join; its token is shown once", (("name", {}),)),
        "revoke": ("let a machine in no more", (("name", {}),)),
    },
    "audit": {
        "list": (
            "list what was written",
            (("--account", {"default": "", "help": "the account's id (default: the installation's)"}),),
        ),
        "verify": ("look whether anything of it was changed", (("--account", {"help": "only this account's"}),)),
    },
}
_HELP = {
    "account": "customers", "person": "people who sign in", "plan": "limits of accounts", "server": "virtual SMTP servers",
    "credential": "what devices and programs sign in with", "domain": "sending domains", "node": "machines with relays",
    "audit": "who wrote what",
}  # fmt: skip


def add_commands(commands: Any, common: argparse.ArgumentParser) -> Any:
    """Add the commands to the command line; give the actions of `credential`, to which a relay alone adds one."""
    added = {}
    for name, actions in ACTIONS.items():
        parser = commands.add_parser(name, help=_HELP[name])
        below = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
        for action, (text, arguments) in actions.items():
            words = below.add_parser(action, parents=[common], help=text)
            for argument, options in arguments:
                words.add_argument(argument, **options)
            words.add_argument("--json", action="store_true", help="one JSON object a line")
            words.set_defaults(run=_runner(name, action))
        added[name] = below
    return added["credential"]


def _runner(name: str, action: str) -> Callable[[argparse.Namespace], int]:
    def run(parsed: argparse.Namespace) -> int:
        from postbud.app.control_plane import start_django  # noqa: PLC0415 (only the console loads Django)

        settings = settings_of(parsed)
        if not settings.config.console.database and not (settings.data / "console.db").exists():
            raise SettingsError(f"{settings.data} holds no console: start `postbud serve` or `postbud console` once")
        start_django(settings, demo=demo.is_demo(settings.data))
        from postbud.app import clerk  # noqa: PLC0415 (after Django's setup)

        try:
            rows, good = clerk.act(name, action, parsed)
        except clerk.Refused as refused:
            raise SettingsError(refused.text) from refused
        _print(rows, as_json=parsed.json, in_columns=action == "list")
        return 0 if good else 1

    return run


def _print(rows: list[Row], *, as_json: bool, in_columns: bool) -> None:
    if as_json:
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        return
    if in_columns:
        texts = [[_text(value) for value in row.values()] for row in rows]
        widths = [max(len(text[column]) for text in texts) for column in range(len(texts[0]))] if texts else []
        for text in texts:
            sys.stdout.write("  ".join(one.ljust(width) for one, width in zip(text, widths, strict=True)).rstrip() + "\n")
        return
    for row in rows:
        width = max((len(key) for key in row), default=0)
        sys.stdout.writelines(f"{key.replace('_', ' ').ljust(width)}  {_text(value)}\n" for key, value in row.items())


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "-"
    return str(value)
