"""Load A: Postfix's smtp-source submits, smtp-sink receives and counts. Every party is measured alike, from outside."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.parties import Party, running
from tests.ports import free_port

_PATH = f"/usr/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}"
SESSIONS = 50
WARM_UP = 500


def program(name: str) -> str:
    """Give the path of a program of Postfix's package."""
    return shutil.which(name, path=_PATH) or name


@dataclass
class Sink:
    """smtp-sink with its running count of messages."""

    port: int
    process: subprocess.Popen[bytes]
    count: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def read(self) -> int:
        """Give how many messages it has received so far."""
        assert self.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while octets := os.read(self.process.stdout.fileno(), 1 << 16):
                *whole, self._rest = (self._rest + octets).split(b"\r")
                if whole and (found := re.search(rb"mesg=(\d+)", whole[-1])):
                    self.count = int(found[1])
        return self.count

    def wait_for(self, count: int, seconds: float) -> float:
        """Wait until it has received so many; give the instant.

        Raises:
            TimeoutError: They did not come.
        """
        deadline = time.monotonic() + seconds
        while self.read() < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sink has {self.count} of {count} messages after {seconds:.0f} s")
            time.sleep(0.01)
        return time.monotonic()


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    """Run smtp-sink, which takes as many sessions as come."""
    port = free_port()
    words = [program("smtp-sink"), "-c", "-u", "nobody", "-m", "2000", f"127.0.0.1:{port}", "1000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    try:
        time.sleep(0.3)
        yield Sink(port, process)
    finally:
        process.terminate()
        process.wait(10)


def submit(port: int, messages: int, octets: int, seconds: float = 300) -> float:
    """Send messages over sessions that stay open; give the seconds until the last 250."""
    words = [program("smtp-source"), "-d", "-s", str(SESSIONS), "-m", str(messages), "-l", str(octets)]
    words += ["-f", "printer@acme.example", "-t", "you@dest.example", "-M", "bench.example", f"127.0.0.1:{port}"]
    begun = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"smtp-source: {done.stderr.strip()[-300:]}")
    return time.monotonic() - begun


def end_to_end(party: Party, messages: int, octets: int) -> dict[str, float]:
    """Give messages a second from the first submitted to the last received at the next hop; beside it, the rate of the 250s."""
    with sink() as next_hop, running(party, next_hop.port) as one:
        submit(one.port, WARM_UP, octets)
        next_hop.wait_for(WARM_UP, 120)
        begun = time.monotonic()
        accepted = submit(one.port, messages, octets)
        done = next_hop.wait_for(WARM_UP + messages, 300)
        return {"rate": messages / (done - begun), "accepted": messages / accepted}


def accept_only(party: Party, messages: int, octets: int) -> dict[str, float]:
    """Give messages a second until 250 while the next hop's port is closed."""
    with running(party, free_port()) as one:
        submit(one.port, WARM_UP, octets)
        return {"rate": messages / submit(one.port, messages, octets)}
