"""A worker that takes connections and turns of sites until it is killed, sometimes by its own hand while it has the lock.

Usage: limits_child.py FILE WORKER LOG SEED. It logs by single writes, which outlive a kill: `+ SITE SERIAL T` after a
connection was got, `- SITE SERIAL T` before it is given back, `r SITE T` with the time at which a turn was granted, `x T`
before it kills itself. So what the log says is held was held.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from postbud.egress.limits import NodeLimits

CONNECTIONS = {"mx.example|203.0.113.5": 5, "mx.example|203.0.113.6": 2}
RATES = {"mx.example|203.0.113.5": (5.0, 1.0), "mx.example|203.0.113.6": (200.0, 10.0)}
SUICIDE = 1 / 1500  # at a reading of the clock, which happens inside the lock


class Worker:
    def __init__(self, path: Path, number: int, log: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.read_at = 0.0
        self.limits = NodeLimits(path, number, self.clock)
        self.serial = 0
        self.open: list[tuple[float, str, int]] = []

    def clock(self) -> float:
        self.read_at = time.monotonic()
        if self.dice.random() < SUICIDE:
            self.write(f"x {time.monotonic()}")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.read_at

    def write(self, line: str) -> None:
        os.write(self.log, line.encode() + b"\n")

    def step(self) -> None:
        for site, limit in CONNECTIONS.items():
            got = self.limits.acquire(site, limit)
            self.limits.want(site, not got)
            if got:
                self.serial += 1
                self.write(f"+ {site} {self.serial} {time.monotonic()}")
                self.open.append((time.monotonic() + self.dice.expovariate(100), site, self.serial))
            rate, burst = RATES[site]
            if self.limits.reserve(site, rate, burst) == 0.0:
                self.write(f"r {site} {self.read_at}")
        now = time.monotonic()
        for until, site, serial in [one for one in self.open if one[0] <= now]:
            self.open.remove((until, site, serial))
            self.write(f"- {site} {serial} {time.monotonic()}")
            self.limits.release(site)


if __name__ == "__main__":
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    while True:
        worker.step()
        time.sleep(worker.dice.expovariate(1000))
