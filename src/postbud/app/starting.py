"""The commands that start something: `serve`, `relay`, `console`, and the programs that a supervisor starts.

Wires a `Node` from the settings and hands it to the supervisor; whoever runs in the end is one import away, so that a relay
worker never loads what only the console needs.
"""

import argparse
import asyncio
import os
import random
import secrets
import time
from pathlib import Path
from typing import Any

import uvloop

from postbud.app import demo
from postbud.app.config import Settings, load_settings
from postbud.app.locks import roles_held
from postbud.app.node import (
    Words,
    catcher_program,
    console_programs,
    folders,
    link_socket,
    preparation,
    relay_workers,
    traffic_program,
)
from postbud.app.programs import Stage, say_ready
from postbud.app.reporting import Reporter
from postbud.app.serve import Node, Supervisor
from postbud.console.installation import key_path, make_key
from postbud.delivery.signing import check_key
from postbud.link.file import last_good, load
from postbud.link.follow import Follower
from postbud.model.sealed import KEY_OCTETS
from postbud.model.settings import SettingsError
from postbud.net.http import LinkAddress, LinkClient
from postbud.telemetry.logs import Log
from postbud.telemetry.logs import configure as configure_logs

_CONSOLE_STARTS_SECONDS = 20.0  # a console that does not answer yet is no news
_DEMO_FOLDER = Path("data/demo")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the command line."""
    serve = commands.add_parser("serve", parents=[common], help="run everything on this machine: console and relay")
    serve.add_argument("--demo", action="store_true", help="an example, complete and on loopback; nothing leaves the machine")
    serve.add_argument("--traffic", action="store_true", help="with --demo: play believable traffic")
    serve.add_argument("--port-offset", type=int, help="with --demo: add this to every port")
    serve.set_defaults(run=_serve)

    relay = commands.add_parser("relay", parents=[common], help="run this machine's relay workers")
    source = relay.add_mutually_exclusive_group()
    source.add_argument("--directory", type=Path, help="accounts.toml: a relay that stands alone")
    source.add_argument("--console", help="the console's link: unix:PATH or https://HOST:PORT")
    relay.add_argument("--token-file", type=Path, help="this machine's token, from `postbud node add`")
    relay.set_defaults(run=_relay)

    console = commands.add_parser("console", parents=[common], help="run the control plane alone")
    console.add_argument("--demo", action="store_true", help=argparse.SUPPRESS)
    console.set_defaults(run=_console)

    worker = commands.add_parser("worker", parents=[common])
    worker.add_argument("index", type=int)
    where = worker.add_mutually_exclusive_group(required=True)
    where.add_argument("--directory", type=Path)
    where.add_argument("--replica", action="store_true", help="the directory is what the supervisor keeps in the data folder")
    worker.set_defaults(run=_worker)

    programs = {"console-pages": _pages, "console-link": _link, "console-jobs": _jobs, "console-prepare": _prepare}
    for name, run in programs.items():
        program = commands.add_parser(name, parents=[common])
        program.add_argument("--demo", action="store_true", help=argparse.SUPPRESS)
        program.set_defaults(run=run)
    backup = commands.add_parser("backup", parents=[common], help="write what brings this console back to one file")
    backup.add_argument("file", help="a tar file; - is standard output")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", parents=[common], help="bring a console back from a backup")
    restore.add_argument("file", type=Path)
    restore.add_argument("--force", action="store_true", help="over existing data, which is set aside")
    restore.set_defaults(run=_restore)

    for name, run in (("demo-catcher", _catcher), ("demo-traffic", _traffic)):
        commands.add_parser(name, parents=[common]).set_defaults(run=run)


def settings_of(parsed: argparse.Namespace) -> Settings:
    """Read the settings that a command line means."""
    return load_settings(parsed.config, os.environ, parsed.data)


def _log_of(settings: Settings) -> Log:
    telemetry = settings.config.telemetry
    log, _ = configure_logs(level=telemetry.log_level, as_json=telemetry.log_json, worker="supervisor")
    return log


def _words(parsed: argparse.Namespace, *, demo: bool = False) -> Words:
    return Words(parsed.config, Path(parsed.data) if parsed.data else None, demo)


def _run(settings: Settings, node: Node, log: Log) -> int:
    has_relay = any(program.relays for program in node.programs)
    roles = (("relay",) if has_relay else ()) + (("console",) if node.prepare is not None else ())
    with roles_held(settings.data, roles):
        if any(program.stage is Stage.CATCHER for program in node.programs):
            demo.require_ports(settings)
        return asyncio.run(Supervisor(settings, node, log).run())


def _serve(parsed: argparse.Namespace) -> int:
    if not parsed.demo and (parsed.traffic or parsed.port_offset is not None):
        raise SettingsError("--traffic and --port-offset go with --demo")
    if parsed.demo:
        _become_demo(parsed)
    settings = settings_of(parsed)
    if not parsed.demo:
        demo.refuse_demo(settings.data)
    _require_listeners(settings)
    folders(settings)
    installation_key(settings, make=True)
    log = _log_of(settings)
    words = _words(parsed, demo=parsed.demo)
    node = Node(programs=[], prepare=preparation(words))
    node.programs += console_programs(settings, words, node.prepared)
    if parsed.demo:
        node.programs.append(catcher_program(words))
        node.on_ready = lambda: demo.say_welcome(settings.data)
    known = _follow(settings, node, words, LinkAddress(f"unix:{link_socket(settings)}"), None, log)
    if parsed.traffic:
        node.programs.append(traffic_program(words, known))
    return _run(settings, node, log)


def _become_demo(parsed: argparse.Namespace) -> None:
    parsed.data = str(Path(parsed.data or _DEMO_FOLDER).absolute())
    demo.prepare(Path(parsed.data), getattr(parsed, "port_offset", None))


def _console(parsed: argparse.Namespace) -> int:
    if parsed.demo:
        _become_demo(parsed)
    settings = settings_of(parsed)
    if not parsed.demo:
        demo.refuse_demo(settings.data)
    folders(settings)
    installation_key(settings, make=True)
    words = _words(parsed, demo=parsed.demo)
    node = Node(programs=[], prepare=preparation(words))
    node.programs += console_programs(settings, words, node.prepared)
    return _run(settings, node, _log_of(settings))


def _relay(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    _require_listeners(settings)
    folders(settings)
    log = _log_of(settings)
    words = _words(parsed)
    if parsed.directory is not None:
        _check_directory(settings, parsed.directory)
        node = Node(relay_workers(settings, words, ["--directory", str(parsed.directory.absolute())]))
        return _run(settings, node, log)
    url = parsed.console or settings.config.relay.console
    if not url:
        raise SettingsError("name the console with --console (or relay.console), or a directory file with --directory")
    token_file = parsed.token_file
    if token_file is None and settings.config.relay.console_token_file is not None:
        token_file = settings.path(settings.config.relay.console_token_file)
    address = _link_address(settings, url, token_file)
    installation_key(settings, make=url == f"unix:{link_socket(settings)}")
    node = Node(programs=[])
    _follow(settings, node, words, address, token_file, log)
    return _run(settings, node, log)


def _follow(
    settings: Settings, node: Node, words: Words, address: LinkAddress, token_file: Path | None, log: Log
) -> asyncio.Event:
    """Give the node workers and a follower of the console; the event is set once there is a directory to start them with."""
    began = time.monotonic()

    def say(level: str, text: str) -> None:
        if level == "info" or time.monotonic() - began < _CONSOLE_STARTS_SECONDS:
            log.info("link", said=text)
        else:
            log.warning("link", said=text)

    client = LinkClient(address)
    dice = random.Random(secrets.randbits(64))  # noqa: S311 (spreads what nodes ask in time)
    node.follower = follower = Follower(client, settings.data / "replica", time.time, dice.random, say)
    node.reporter = Reporter(settings, LinkClient(address), lambda: follower.seq, words.given())
    environment = {"POSTBUD__RELAY__CONSOLE": address.url}
    if token_file is not None:
        environment["POSTBUD__RELAY__CONSOLE_TOKEN_FILE"] = str(token_file.absolute())
    node.programs += relay_workers(settings, words, ["--replica"], follower.known, environment)
    return follower.known


def _link_address(settings: Settings, url: str, token_file: Path | None) -> LinkAddress:
    ca_file = settings.config.relay.console_ca_file
    if not url.startswith(("unix:", "https://")):
        raise SettingsError(f"--console {url}: it is unix:PATH or https://HOST:PORT")
    if url.startswith("https://") and token_file is None:
        raise SettingsError("a console over https needs --token-file (or relay.console_token_file)")
    try:
        token = token_file.read_text(encoding="ascii").strip() if token_file is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{token_file}: {error}") from error
    return LinkAddress(url, token, settings.path(ca_file) if ca_file is not None else None)


def _require_listeners(settings: Settings) -> None:
    if not settings.config.relay.listener:
        raise SettingsError("no [[relay.listener]]: nothing to do; see docs/settings.md")


def _check_directory(settings: Settings, directory: Path) -> None:
    try:
        load(directory, check_key)
    except SettingsError:
        if last_good(settings.data / "replica") is None:  # else the workers say what is wrong and start from that
            raise


def installation_key(settings: Settings, *, make: bool) -> bytes:
    """Give the key that sealed records open with, made at the first start of a console.

    Raises:
        SettingsError: It is missing and not to be made here, or it is no key.
    """
    path = key_path(settings.data)
    if make and not path.exists():
        if (settings.data / "console.db").exists():  # a new key opens nothing of it
            raise SettingsError(f"{path} is missing: bring it back from a backup; without it nothing that is sealed opens")
        make_key(settings.data)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing: copy it from the console's data folder, mode 0600") from None
    if len(key) != KEY_OCTETS:
        raise SettingsError(f"{path} is no installation key: it has {KEY_OCTETS} octets")
    return key


def _backup(parsed: argparse.Namespace) -> int:
    from postbud.app.backup import run_backup  # noqa: PLC0415 (only the console loads Django)

    return run_backup(settings_of(parsed), parsed.file)


def _restore(parsed: argparse.Namespace) -> int:
    from postbud.app.backup import run_restore  # noqa: PLC0415 (only the console loads Django)

    settings = settings_of(parsed)
    with roles_held(settings.data, ("console",)):
        return run_restore(settings, parsed.file, force=parsed.force)


# -- programs of a supervisor ----------------------------------------------------------------------------------------------


def _worker(parsed: argparse.Namespace) -> int:
    from postbud.app.worker import run_worker  # noqa: PLC0415 (only a worker loads what delivers mail)

    return uvloop.run(run_worker(settings_of(parsed), parsed.directory, parsed.index))


def _pages(parsed: argparse.Namespace) -> int:
    from postbud.app.control_plane import run_pages  # noqa: PLC0415 (only the console loads Django)

    return run_pages(settings_of(parsed), demo=parsed.demo)


def _link(parsed: argparse.Namespace) -> int:
    from postbud.app.control_plane import run_link  # noqa: PLC0415 (only the console loads Django)

    return run_link(settings_of(parsed), demo=parsed.demo)


def _jobs(parsed: argparse.Namespace) -> int:
    from postbud.app.control_plane import run_jobs  # noqa: PLC0415 (only the console loads Django)

    return run_jobs(settings_of(parsed), demo=parsed.demo)


def _prepare(parsed: argparse.Namespace) -> int:
    from postbud.app.upgrading import prepare_console  # noqa: PLC0415 (only the console loads Django)

    return prepare_console(settings_of(parsed), demo=parsed.demo)


def _catcher(parsed: argparse.Namespace) -> int:
    from postbud.app.catcher_pages import run_catcher  # noqa: PLC0415 (only the demo loads it)

    return uvloop.run(run_catcher(settings_of(parsed)))


def _traffic(parsed: argparse.Namespace) -> int:
    from postbud.app.traffic import run_traffic  # noqa: PLC0415 (only the demo loads it)

    settings = settings_of(parsed)
    noted = demo.read_noted(settings.data)
    if noted is None:
        raise SettingsError(f"{settings.data} holds no {demo.NOTED}: is it a demo?")
    log = _log_of(settings)
    return run_traffic(noted, say_ready, lambda text: log.info("traffic", said=text))
