"""`postbud demo`: a relay with an example directory and a built-in catcher as next hop. Nothing leaves the machine.

Makes everything under one folder at the first start (keys, secrets, certificate) and prints a `swaks` line that works.
The catcher is a real SMTP server on loopback that keeps what it gets as files.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postbud.app.catcher import Catcher
from postbud.link.replica import hash_secret
from postbud.model.settings import SettingsError

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no i, l, o, 0, 1: printers have small keyboards
_SECRET_LENGTH = 25  # 24.8 bits a five; 25 characters hold 123 bits
_READY_SECONDS = 30.0

_SETTINGS = """# An example; every key is explained in docs/settings.md.
data_dir = "data"
[relay]
hostname = "relay.example"
workers = 2
[[relay.listener]]
address = "127.0.0.1:2525"
role = "submission"
tls = "starttls"
auth_without_tls = true
[[relay.listener]]
address = "127.0.0.1:4465"
role = "submission"
tls = "implicit"
[[relay.route]]
match = "*"
next_hop = "127.0.0.1:2626"
tls = "none"
[telemetry]
address = "127.0.0.1:9025"
log_level = "warning"
"""

_ACCOUNTS = """[[account]]
id = "acct_acme"
name = "Acme ApS"
[[account.domain]]
name = "acme.example"
[[account.domain.dkim]]
selector = "s1"
key_file = "acme-s1.pem"
[[account.domain.dkim]]
selector = "e1"
key_file = "acme-e1.pem"
[[account.server]]
id = "srv_office"
kind = "transactional"
[[account.server.credential]]
id = "crd_printer"
username = "printer-1"
secret_hash = "{secret_hash}"
"""


def run_demo(folder: Path) -> int:
    """Run the demo until interrupted."""
    folder = folder.absolute()
    return asyncio.run(_run(folder, prepare(folder)))


def prepare(folder: Path) -> dict[str, str]:
    """Make the example at the first start; give what it needs to be tried.

    Raises:
        SettingsError: The folder holds something else.
    """
    noted = folder / "demo.json"
    if noted.exists():
        known: dict[str, str] = json.loads(noted.read_text())
        return known
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty and holds no demo; choose another folder with --data")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    for name, key in (
        ("acme-s1.pem", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        ("acme-e1.pem", ed25519.Ed25519PrivateKey.generate()),
    ):
        _write(folder / name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(folder / "postbud.toml", _SETTINGS.encode())
    accounts = _ACCOUNTS.format(secret_hash=hash_secret(secret.encode(), secrets.token_bytes(16)))
    _write(folder / "accounts.toml", accounts.encode())
    made = {"username": "printer-1", "secret": secret, "host": "127.0.0.1", "port": "2525", "tls_port": "4465"}
    _write(noted, json.dumps(made, indent=2).encode())
    return made


def _write(path: Path, octets: bytes) -> None:
    path.write_bytes(octets)
    path.chmod(0o600)


async def _run(folder: Path, made: dict[str, str]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    catcher = Catcher(folder / "caught")
    async with asyncio.TaskGroup() as group:
        await catcher.start("127.0.0.1", 2626, group)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbud", "relay",
            "--config", str(folder / "postbud.toml"), "--directory", str(folder / "accounts.toml"),
        )  # fmt: skip
        waiting = group.create_task(process.wait())
        waiting.add_done_callback(lambda _: stop.set())
        if await _is_ready(stop):
            sys.stdout.write(_welcome(made, catcher.folder))
            sys.stdout.flush()
        await stop.wait()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await waiting
        catcher.stop()
    return 0 if process.returncode in (0, -signal.SIGINT) else 1


async def _is_ready(stop: asyncio.Event) -> bool:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", 9025)
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if b"200 OK" in answer.partition(b"\r\n")[0]:
                return True
        except OSError:
            pass
        await asyncio.sleep(0.2)
    return False


def _welcome(made: dict[str, str], caught: Path) -> str:
    try:
        shown = caught.relative_to(Path.cwd())
    except ValueError:
        shown = caught
    return f"""
Postbud runs as a demo: nothing leaves this machine. Send a first mail from another terminal:

  swaks --server {made["host"]}:{made["port"]} --tls --auth PLAIN --auth-user {made["username"]} \\
    --auth-password {made["secret"]} --from printer@acme.example --to you@example.net

It is signed, delivered by SMTP to a catcher, and kept as a file in {shown}{os.sep}
What became of it: data/demo/data/events/*.jsonl · health: http://127.0.0.1:9025/health · metrics: …/metrics
Stop with Ctrl-C.
"""
