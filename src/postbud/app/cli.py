"""The `postbud` command. Each subcommand is one function that gives the exit status; errors are one line on standard error.

Exit status: 0 done, 1 it could not be done, 2 wrong words or settings.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from postbud.app import administration
from postbud.app.config import flatten
from postbud.app.doctor import run_doctor
from postbud.app.explain import run_explain
from postbud.app.queue_command import run_queue
from postbud.app.starting import add_commands, settings_of
from postbud.delivery.signing import check_key
from postbud.link.file import load
from postbud.link.secret import hash_secret
from postbud.model.api_key import new_secret, read_key, write_key
from postbud.model.settings import SettingsError
from postbud.spool.failpoint import configure as configure_failpoints
from postbud.spool.values import SpoolLocked, SpoolUnusable

_MIN_SECRET = 20
_SALT_OCTETS = 16
_KEY_OCTETS = 96  # of which enough make a secret


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parsed = _parser().parse_args(arguments)
    os.umask(0o077)
    configure_failpoints(os.environ.get("POSTBUD_FAILPOINTS", ""))
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except (SettingsError, SpoolLocked, SpoolUnusable) as error:
        sys.stderr.write(f"postbud: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"postbud: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="postbud", description="An outbound mail service that keeps its own policy.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="settings file (default ./postbud.toml)")
    common.add_argument("--data", help="data folder (default: data_dir of the settings)")

    add_commands(commands, common)

    queue = commands.add_parser("queue", help="look into and steer the queue")
    actions = queue.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in (
        ("list", "list queued deliveries"),
        ("show", "show one message or delivery"),
        ("retry", "make due now"),
        ("hold", "hold until released"),
        ("release", "take an operator's hold away"),
        ("cancel", "end without delivering"),
    ):
        action = actions.add_parser(name, parents=[common], help=text)
        action.add_argument("id", nargs="*" if name != "show" else 1, help="message or delivery ids")
        for key in ("account", "server", "credential", "domain"):
            action.add_argument(f"--{key}")
        action.add_argument("--held", action="store_true", default=None, help="only what is held")
        action.add_argument("--json", action="store_true", help="one JSON object a line")
        action.add_argument("--limit", type=int, default=1000)
        action.set_defaults(run=lambda parsed, name=name: run_queue(name, parsed, settings_of(parsed)))

    explaining = actions.add_parser("explain", parents=[common], help="say how mail for a domain goes, and how fast")
    explaining.add_argument("domain")
    explaining.add_argument("--json", action="store_true", help="one JSON object a worker")
    explaining.set_defaults(run=lambda parsed: run_explain(parsed, settings_of(parsed)))

    doctor = commands.add_parser("doctor", parents=[common], help="look at everything that mail needs, and say how to mend it")
    doctor.add_argument("--json", action="store_true", help="one JSON object a line")
    doctor.set_defaults(run=lambda parsed: run_doctor(parsed, settings_of(parsed)))

    credential_actions = administration.add_commands(commands, common)
    hashing = credential_actions.add_parser("hash", help="for a directory file: read a secret, print its secret_hash")
    hashing.set_defaults(run=_credential_hash)
    key = credential_actions.add_parser("api-key", help="make a key of the sending API, and the entry that allows it")
    key.add_argument("id", help="of the credential: crd_ and letters, digits, hyphens and underscores")
    key.set_defaults(run=_credential_api_key)

    config = commands.add_parser("config", help="check and explain the settings")
    config_actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, function in (("check", _config_check), ("explain", _config_explain)):
        action = config_actions.add_parser(name, parents=[common])
        action.add_argument("--directory", type=Path, help="check accounts.toml too")
        action.set_defaults(run=function)
    return parser


def _credential_hash(_: argparse.Namespace) -> int:
    secret = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if len(secret) < _MIN_SECRET:
        raise SettingsError(f"a secret has {_MIN_SECRET} characters or more; `openssl rand -hex 12` makes one")
    sys.stdout.write(hash_secret(secret, secrets.token_bytes(_SALT_OCTETS)) + "\n")
    return 0


def _credential_api_key(parsed: argparse.Namespace) -> int:
    secret = new_secret(secrets.token_bytes(_KEY_OCTETS))
    fine = parsed.id.startswith("crd_") and parsed.id.isascii()
    key = write_key(parsed.id, secret) if fine else ""
    if read_key(key) is None:
        raise SettingsError("an id is crd_ and 1 to 64 letters, digits, hyphens and underscores")
    stored = hash_secret(secret.encode("ascii"), secrets.token_bytes(_SALT_OCTETS))
    entry = f'[[account.server.credential]]\nid = "{parsed.id}"\napi = true\nsecret_hash = "{stored}"\n'
    sys.stdout.write(f"# shown once: {key}\n{entry}")
    return 0


def _config_check(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    problems: list[str] = []
    if parsed.directory is not None:
        directory = load(parsed.directory, check_key)
        problems = [
            f"{account.id}: domain {domain.name}: key {key.selector}: {key.problem}; its mail would be held"
            for account in directory.accounts.values()
            for domain in account.domains
            for key in domain.keys
            if key.problem is not None
        ]
        problems += [
            f"{account.id}: domain {domain.name} has no [[account.domain.dkim]]; its mail would be held"
            for account in directory.accounts.values()
            for domain in account.domains
            if not domain.keys
        ]
    for problem in problems:
        sys.stdout.write(f"problem: {problem}\n")
    if not problems:
        sys.stdout.write(f"settings are good; hostname {settings.hostname}, {settings.workers} workers\n")
    return 1 if problems else 0


def _config_explain(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    for key, value in flatten(settings.config):
        sys.stdout.write(f"{key} = {msgspec.json.encode(value).decode()}\n")
    return 0
