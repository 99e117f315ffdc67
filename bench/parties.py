"""The parties of the benchmark: what each is called, where it comes from, and how it is started and ended.

Configurations stand in `bench/peers/` with their reasons. Each party runs in PID and mount namespaces of its own and in a
folder of its own below /var/tmp (a disk, unlike /tmp on many machines); when its first process is killed, the kernel ends all.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "bench" / "peers"
CACHE = ROOT / "build" / "bench"
USERNAME, SECRET = "printer-1", "printer-1-secret-of-the-benchmark-23456789"
_SALT = b"benchmark"


@dataclass(frozen=True)
class Party:
    """One server under test."""

    name: str
    title: str
    layers: tuple[str, ...]  # folders of bench/peers, later ones over earlier ones
    program: str  # what must be there
    version_command: tuple[str, ...]
    debian: str = ""  # the package that is unpacked into the cache, if it is not installed as usual
    authenticates: bool = False  # it takes load B

    def version(self) -> str:
        """Give its version number."""
        done = subprocess.run(self.version_command, capture_output=True, text=True, check=False, timeout=30)
        found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
        return found.group(0) if found else "unknown"

    def is_there(self) -> bool:
        """Tell whether its program is installed."""
        return Path(self.program).exists()


# No party asks this machine's name servers.
_START = "mount --bind /dev/null /etc/resolv.conf; exec sh -eu run.sh"
_POSTBUD = (sys.executable, "-c", "import importlib.metadata as m; print(m.version('postbud'))")
_POSTCONF = ("/usr/sbin/postconf", "-d", "mail_version")
_EXIM, _SMTPD, _HARAKA = (
    f"{CACHE}/{path}"
    for path in ("exim4-daemon-light/usr/sbin/exim4", "opensmtpd/usr/sbin/smtpd", "haraka/node_modules/Haraka/package.json")
)
PARTIES = (
    Party("postbud", "Postbud, signs (RSA)", ("postbud",), sys.executable, _POSTBUD, authenticates=True),
    Party("postbud_dual", "Postbud, signs (RSA and Ed25519)", ("postbud", "postbud_dual"), sys.executable, _POSTBUD),
    Party("postfix", "Postfix", ("postfix",), _POSTCONF[0], _POSTCONF, authenticates=True),
    Party(
        "postfix_opendkim", "Postfix, OpenDKIM signs (RSA)", ("postfix", "postfix_opendkim"), "/usr/sbin/opendkim", _POSTCONF
    ),
    Party("opensmtpd", "OpenSMTPD (never syncs)", ("opensmtpd",), _SMTPD, (_SMTPD, "-h"), "opensmtpd"),
    Party("exim", "Exim, signs (RSA)", ("exim",), _EXIM, ("cat", f"{CACHE}/exim4-daemon-light/VERSION"), "exim4-daemon-light"),
    Party("haraka", "Haraka, signs (RSA)", ("haraka",), _HARAKA, ("grep", '"version"', _HARAKA)),
)


@dataclass(frozen=True)
class Running:
    """A party that answers."""

    party: Party
    folder: Path
    port: int
    auth_port: int
    process: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """Give the process ids of all that belongs to it."""
        return _descendants(self.process.pid)


def install(parties: tuple[Party, ...] = PARTIES) -> None:
    """Fetch what is missing: Debian's mail servers conflict as packages, so they are unpacked, not installed; Haraka by npm."""
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = [party.debian for party in parties if party.debian] + ["sasl2-bin"]
    for package in packages:
        if not (CACHE / package).is_dir():
            _unpack(package)
    haraka = CACHE / "haraka"
    if any(party.name == "haraka" for party in parties) and not (haraka / "node_modules" / "Haraka").is_dir():
        haraka.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PEERS / "haraka" / name, haraka)
        subprocess.run(
            ["npm", "ci", "--silent", "--no-progress", "--ignore-scripts", "--omit=optional"], cwd=haraka, check=False
        )


def _unpack(package: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)  # apt downloads as a user of its own
        done = subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.deb"))
        if not archives:
            print(f"{package}: not to be had: {done.stderr.strip()}", file=sys.stderr)
            return
        subprocess.run(["dpkg", "-x", str(archives[0]), str(CACHE / package)], check=True)
        (CACHE / package / "VERSION").write_text(archives[0].name.split("_")[1] + "\n")


@contextlib.contextmanager
def running(party: Party, next_hop_port: int) -> Iterator[Running]:
    """Start a party that sends everything to a port; end it and remove its folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{party.name}-", dir="/var/tmp"))
    ports = {"port": free_port(), "auth_port": free_port(), "metrics_port": free_port()}
    process = None
    try:
        _fill(folder, party, ports | {"next_hop_port": next_hop_port})
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc", _START],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Linux shares cores by session (sched_autogroup), and some servers open their own
            )
        one = Running(party, folder, ports["port"], ports["auth_port"], process)
        _wait_for_greeting(one)
        yield one
    finally:
        if process is not None:
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the namespace and so all of them (`unshare --kill-child` forgets one that changed its user)."""
    for first in _descendants(process.pid)[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
    process.kill()
    process.wait(30)


def _fill(folder: Path, party: Party, ports: dict[str, int]) -> None:
    folder.chmod(0o755)
    secret_hash = f"sha256${_SALT.hex()}${hashlib.sha256(_SALT + SECRET.encode()).hexdigest()}"
    values = {name: str(port) for name, port in ports.items()} | {
        "folder": str(folder),
        "cache": str(CACHE),
        "cores": str(os.cpu_count() or 1),
        "python": sys.executable,
        "secret_hash": secret_hash,
    }
    for layer in party.layers:
        for source in (PEERS / layer).rglob("*"):
            target = folder / source.relative_to(PEERS / layer)
            if source.is_dir():
                target.mkdir(exist_ok=True)
                continue
            text = re.sub(r"@(\w+)@", lambda token: values.get(token[1], token[0]), source.read_text())
            target.write_text(text)
    for name, octets in keys().items():
        (folder / name).write_bytes(octets)
        (folder / name).chmod(0o600)
    if "postfix" in party.layers:
        _write_sasl(folder)


@functools.cache
def keys() -> dict[str, bytes]:
    """Make the keys of a run once, so that all parties sign with the same."""
    with tempfile.TemporaryDirectory() as name:
        rsa, ed25519, tls, certificate = (f"{name}/{each}.pem" for each in ("dkim-rsa", "dkim-ed25519", "tls-key", "tls"))
        for words in (
            ["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048", "-out", rsa],
            ["genpkey", "-algorithm", "ed25519", "-out", ed25519],
            ["genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", tls],
            ["req", "-x509", "-key", tls, "-subj", "/CN=relay.example", "-days", "30", "-out", certificate],
        ):
            subprocess.run(["openssl", *words], check=True, capture_output=True)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def _write_sasl(folder: Path) -> None:
    program = CACHE / "sasl2-bin" / "usr" / "sbin" / "saslpasswd2"
    if program.exists():
        words = [str(program), "-p", "-c", "-u", "acme.example", "-f", str(folder / "sasldb2"), USERNAME]
        subprocess.run(words, input=SECRET.encode(), check=True, capture_output=True)
        shutil.chown(folder / "sasldb2", "postfix")


def _wait_for_greeting(one: Running, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and one.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", one.port), timeout=5) as connection:
            if connection.recv(3) == b"220":
                return
        time.sleep(0.1)
    logs = [path for path in (one.folder / "output", one.folder / "log", one.folder / "maillog") if path.is_file()]
    said = "\n".join(path.read_text(errors="replace")[-1500:] for path in logs)
    raise RuntimeError(f"{one.party.title} did not start: {said}")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found
