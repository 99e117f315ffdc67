"""The demo's folder: marked as one, its settings written at the first start, what it printed kept in `demo.json`.

Nothing to configure, no DNS, nothing leaves the machine: every route ends at the catcher. Invariant: a demo is never begun in
a folder that holds anything else, and a folder that holds a demo is never served as if it were real.
"""

import os
import socket
import sys
import time
from pathlib import Path

import msgspec

from postbud.app.config import Settings
from postbud.model.settings import SettingsError

MARK = "DEMO"
NOTED = "demo.json"
SETTINGS = "postbud.toml"
_ORPHANS_SECONDS = 20.0

_MARK_TEXT = "This folder holds a Postbud demo: example accounts, and every message ends at a catcher. Remove it at will.\n"

_SETTINGS = """# The demo's settings; every key is explained in docs/settings.md. Change what you like, ports too: it is yours.
data_dir = "."

[relay]
hostname = "relay.example"
bounce_domain = "bounce.example"
workers = 2
retry_first_seconds = 20
retry_max_seconds = 300
drain_seconds = 10
allow_private_networks = ["127.0.0.0/8"]

[[relay.listener]]
address = "127.0.0.1:{submission}"
role = "submission"
tls = "starttls"
auth_without_tls = true

[[relay.listener]]
address = "127.0.0.1:{submission_tls}"
role = "submission"
tls = "implicit"

[[relay.listener]]
address = "127.0.0.1:{inbound}"
role = "inbound"

[[relay.route]]
match = "*"
next_hop = "127.0.0.1:{catcher}"
tls = "none"

[demo]
smtp_address = "127.0.0.1:{catcher}"
http_address = "127.0.0.1:{catcher_http}"

[api]
address = "127.0.0.1:{api}"

[console]
address = "127.0.0.1:{console}"
hook_networks = ["127.0.0.0/8"]
hook_ports = [80, 443, 3000, 8080, 8081, 9000]

[telemetry]
address = "127.0.0.1:{telemetry}"
log_level = "warning"
log_json = false
"""
_PORTS = {
    "submission": 2525, "submission_tls": 4465, "inbound": 2526, "catcher": 2626, "catcher_http": 2627, "api": 8025,
    "console": 8000, "telemetry": 9025,
}  # fmt: skip


class Person(msgspec.Struct, frozen=True):
    """A login."""

    email: str
    password: str


class DemoServer(msgspec.Struct, frozen=True):
    """One of Acme's servers, with its credential."""

    id: str
    kind: str
    domain: str
    username: str
    secret: str
    api_key: str


class Noted(msgspec.Struct, frozen=True):
    """`demo.json`: all that the demo printed, for programs."""

    smtp: dict[str, str | int]
    api_url: str
    console_url: str
    inbound: dict[str, str | int]
    catcher: dict[str, str]
    operator: Person
    customer: Person
    servers: list[DemoServer]


def is_demo(folder: Path) -> bool:
    """Tell whether a data folder holds a demo."""
    return (folder / MARK).exists()


def prepare(folder: Path, port_offset: int | None = None) -> None:
    """Make the folder a demo's, with settings of its own, unless it is one already. An offset moves every port.

    Raises:
        SettingsError: The folder holds something else.
    """
    if not is_demo(folder):
        if (folder / NOTED).exists() and (folder / "accounts.toml").exists():
            raise SettingsError(f"{folder} holds the demo of an older version; remove it (rm -r {folder}) and start again")
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty and holds no demo; choose another folder with --data")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(folder / MARK, _MARK_TEXT.encode())
    if port_offset is not None or not (folder / SETTINGS).exists():
        ports = {name: port + (port_offset or 0) for name, port in _PORTS.items()}
        if not all(0 < port < 65536 for port in ports.values()):
            raise SettingsError(f"--port-offset {port_offset}: that leaves the range of ports")
        write_whole(folder / SETTINGS, _SETTINGS.format(**ports).encode())


def refuse_demo(folder: Path) -> None:
    """Stop who would serve a demo's folder as if it were real.

    Raises:
        SettingsError: It is one.
    """
    if is_demo(folder):
        raise SettingsError(f"{folder} holds a demo: add --demo, or choose another folder with --data")


def require_ports(settings: Settings, patience_seconds: float = _ORPHANS_SECONDS) -> None:
    """Wait until every port of the demo is free: programs of a demo that was killed end within seconds.

    Raises:
        SettingsError: Somebody else has one.
    """
    config = settings.config
    addresses = [one.address for one in config.relay.listener]
    addresses += [config.console.address, config.telemetry.address, config.demo.smtp_address, config.demo.http_address]
    addresses += [config.api.address] if config.api.address else []
    deadline = time.monotonic() + patience_seconds
    for address in addresses:
        while not _is_free(address):
            if time.monotonic() > deadline:
                raise SettingsError(f"{address} is in use; --port-offset 10000 moves every port of the demo")
            time.sleep(0.2)


def _is_free(address: str) -> bool:
    host, port = _parts(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
            probe.listen(1)
        except OSError:
            return False
    return True


def read_noted(folder: Path) -> Noted | None:
    """Give what the demo printed; None before it was seeded."""
    try:
        return msgspec.json.decode((folder / NOTED).read_bytes(), type=Noted)
    except FileNotFoundError:
        return None


def note(settings: Settings, operator: Person, customer: Person, servers: list[DemoServer]) -> Noted:
    """Write `demo.json` from the settings in force and what was seeded."""
    relay, demo = settings.config.relay, settings.config.demo
    submission = {one.tls: one.address for one in relay.listener if one.role == "submission"}
    host, port = _parts(submission.get("starttls") or submission["none"])
    _, tls_port = _parts(submission.get("implicit", "127.0.0.1:0"))
    inbound_host, inbound_port = _parts(next((one.address for one in relay.listener if one.role == "inbound"), "127.0.0.1:0"))
    console = settings.config.console
    noted = Noted(
        smtp={"host": host, "port": port, "tls_port": tls_port},
        api_url=console.api_url or f"http://{settings.config.api.address}",
        console_url=(console.public_url or f"http://{console.address}").rstrip("/"),
        inbound={"host": inbound_host, "port": inbound_port},
        catcher={"smtp": demo.smtp_address, "url": f"http://{demo.http_address}"},
        operator=operator,
        customer=customer,
        servers=servers,
    )
    write_whole(settings.data / NOTED, msgspec.json.format(msgspec.json.encode(noted), indent=2) + b"\n")
    return noted


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def write_whole(path: Path, octets: bytes) -> None:
    """Write a file that is never seen half written, for its owner only."""
    made = path.with_name(f".{path.name}.new")
    made.touch(0o600)
    made.write_bytes(octets)
    made.chmod(0o600)
    made.replace(path)


def say_welcome(folder: Path) -> None:
    """Print once what there is to try."""
    noted = read_noted(folder)
    if noted is None:
        return
    sys.stdout.write(welcome(noted, folder))
    sys.stdout.flush()


def welcome(noted: Noted, folder: Path) -> str:
    """Give the lines that get a newcomer going: where to look, and three ways to send a first mail."""
    server = next(one for one in noted.servers if one.kind == "transactional")
    smtp = f"{noted.smtp['host']}:{noted.smtp['port']}"
    try:
        shown = folder.relative_to(Path.cwd())
    except ValueError:
        shown = folder
    return f"""
Postbud runs as a DEMO: nothing leaves this machine.

  Console    {noted.console_url}
             customer   {noted.customer.email}   {noted.customer.password}
             operator   {noted.operator.email}   {noted.operator.password}
  Catcher    {noted.catcher["url"]}   (where every message ends)

Send a first mail from another terminal, and watch it arrive under Messages:

  swaks --server {smtp} --tls --auth PLAIN --auth-user {server.username} \\
    --auth-password {server.secret} --from printer@{server.domain} --to you@example.net

  python3 - <<'END'
  import smtplib
  with smtplib.SMTP("{noted.smtp["host"]}", {noted.smtp["port"]}) as smtp:
      smtp.login("{server.username}", "{server.secret}")
      smtp.sendmail("printer@{server.domain}", ["you@example.net"], "From: printer@{server.domain}\\r\\n"
          "To: you@example.net\\r\\nSubject: Hello\\r\\n\\r\\nFrom a few lines of Python.\\r\\n")
  END

  curl {noted.api_url}/v1/messages -H 'Authorization: Bearer {server.api_key}' -H 'Content-Type: application/json' \\
    -d '{{"from": "printer@{server.domain}", "to": ["you@example.net"], "subject": "Hello", "text": "From curl."}}'

All of this for programs: {shown}{os.sep}{NOTED} · Stop with Ctrl-C.
"""
