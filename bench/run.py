"""Postbud and Postfix under the same load in one run: rates and their ratio.

Run: python bench/run.py [--messages 4000] [--sessions 20] [--octets 4096]

`smtp-source` submits, `smtp-sink` receives, both from Postfix's package, all on loopback and one disk. Both relays sync every
message before their 250; Postbud also signs (RSA-2048 and Ed25519), Postfix does not. Two figures: *accepted* is messages over
the time that `smtp-source` took, *delivered* over the time until the queue was empty. Needs root, for Postfix.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.interop.postfix import AVAILABLE, postfix
from tests.system.directory import Settings
from tests.system.harness import Relay, free_port, wait_until

PATH = f"/usr/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}"


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """Run smtp-sink; give its port."""
    port = free_port()
    program = shutil.which("smtp-sink", path=PATH) or "smtp-sink"
    process = subprocess.Popen([program, "-u", "nobody", f"127.0.0.1:{port}", "1000"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def submit(port: int, arguments: argparse.Namespace) -> float:
    """Send the load; give the seconds until the last 250."""
    program = shutil.which("smtp-source", path=PATH) or "smtp-source"
    begun = time.monotonic()
    subprocess.run(
        [
            program,
            "-d",
            "-s",
            str(arguments.sessions),
            "-m",
            str(arguments.messages),
            "-l",
            str(arguments.octets),
            "-f",
            "printer@acme.example",
            "-t",
            "you@dest.example",
            "-M",
            "bench.example",
            f"127.0.0.1:{port}",
        ],
        check=True,
        timeout=600,
    )
    return time.monotonic() - begun


def measure(name: str, port: int, is_empty: Callable[[], bool], arguments: argparse.Namespace) -> tuple[float, float]:
    """Put the load on one relay; give messages a second accepted, and accepted and delivered."""
    accepted_seconds = submit(port, arguments)
    begun = time.monotonic()
    wait_until(is_empty, f"{name} has delivered everything", 600, every=0.1)
    delivered_seconds = accepted_seconds + time.monotonic() - begun
    accepted, delivered = arguments.messages / accepted_seconds, arguments.messages / delivered_seconds
    print(f"{name:10} accepted {accepted:7.0f}/s   accepted and delivered {delivered:7.0f}/s", flush=True)
    return accepted, delivered


def run_postbud(arguments: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Measure our relay."""
    with tempfile.TemporaryDirectory(prefix="postbud-bench-") as folder, sink() as port:
        extra = 'log_level = "warning"'
        relay = Relay(Path(folder), Settings(workers=workers, next_hop=f"127.0.0.1:{port}", extra=extra))
        relay.start()
        try:

            def is_empty() -> bool:
                return any(line == "postbud_queued_deliveries 0.0" for line in relay.metrics().splitlines())

            return measure(f"postbud x{workers}", relay.ports["network"], is_empty, arguments)
        finally:
            relay.close()


def run_postfix(arguments: argparse.Namespace) -> tuple[float, float]:
    """Measure Postfix as a smarthost."""
    with sink() as port, postfix(f"relayhost = [127.0.0.1]:{port}\nsmtpd_client_connection_count_limit = 0\n") as peer:

        def is_empty() -> bool:
            queue = peer.folder / "queue"
            return not any(path.is_file() for name in ("incoming", "active", "deferred") for path in (queue / name).rglob("*"))

        return measure("postfix", peer.port, is_empty, arguments)


def main() -> int:
    """Run them one after the other and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    ours = run_postbud(arguments, arguments.workers)
    if not AVAILABLE:
        print("postfix is not installed, or this is not root: no ratio")
        return 0
    theirs = run_postfix(arguments)
    print(f"ratio      accepted {ours[0] / theirs[0]:7.1f}     accepted and delivered {ours[1] / theirs[1]:7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
