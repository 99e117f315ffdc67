"""Where a message's microseconds go: CPU of all workers for a message, accept to delivery, under load A.

Run: python -m bench.microseconds [--write] [--octets 4096] [--messages 8000]

`perf` says which object the CPU is in (Debian's linux-perf, root); `py-spy` says which of our packages has the interpreter
(samples of the thread that holds the GIL). Each watches a run of its own; the microseconds come from /proc, over the whole run.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import report
from bench.load import WARM_UP, Sink, sink, submit
from bench.parties import PARTIES, Running, running

_USUAL_OCTETS = 4096
_OBJECTS = (
    ("Linux: sockets, files, scheduling", r"\[kernel|\[vdso"),
    ("RSA and SHA-256 (OpenSSL, in cryptography)", r"_rust\.abi3|libcrypto|_hashlib|_ssl|libssl"),
    ("SQLite (apsw)", r"^__init__\.cpython|sqlite"),
    ("uvloop, libuv", r"^loop\.cpython"),
    ("libc: memory, locks", r"^libc\.so|^ld-linux|libpthread"),
    ("Python and its modules", r"python|cpython|\.so"),
)


@contextmanager
def _loaded(octets: int) -> Iterator[tuple[Sink, Running, list[int]]]:
    postbud = next(party for party in PARTIES if party.name == "postbud")
    with sink() as next_hop, running(postbud, next_hop.port) as one:
        submit(one.port, WARM_UP, octets)
        next_hop.wait_for(WARM_UP, 120)
        yield next_hop, one, one.processes()[1:]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_object(messages: int, octets: int, folder: Path) -> tuple[float, list[tuple[str, float]]]:
    """Give CPU microseconds a message, and the share of each kind of object."""
    data = str(folder / "perf.data")
    with _loaded(octets) as (next_hop, one, workers):
        before = sum(map(_cpu_seconds, workers))
        words = ["perf", "record", "-e", "cpu-clock", "-F", "997", "-o", data, "-p", ",".join(map(str, workers))]
        perf = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        submit(one.port, messages, octets)
        next_hop.wait_for(WARM_UP + messages, 300)
        micros = (sum(map(_cpu_seconds, workers)) - before) / messages * 1e6
        perf.send_signal(signal.SIGINT)
        perf.wait(60)
    words = ["perf", "report", "-i", data, "--stdio", "--sort", "dso"]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    shares = dict.fromkeys((title for title, _ in _OBJECTS), 0.0) | {"other": 0.0}
    for percent, name in re.findall(r"^\s+([\d.]+)%\s+(\S+)", told, re.MULTILINE):
        shares[next((title for title, pattern in _OBJECTS if re.search(pattern, name)), "other")] += float(percent)
    return micros, sorted(((title, share) for title, share in shares.items() if share), key=lambda pair: -pair[1])


def by_package(messages: int, octets: int, folder: Path) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Give shares of the interpreter's time: of our packages, and of functions with what they call outside Postbud."""
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    with _loaded(octets) as (next_hop, one, workers):
        watchers = []
        for worker in workers:
            words = [py_spy, "record", "--gil", "--nonblocking", "--rate", "250", "--format", "raw", "--function"]
            words += ["--duration", "600", "--pid", str(worker), "-o", str(folder / f"{worker}.txt")]
            watchers.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1)
        submit(one.port, messages, octets)
        next_hop.wait_for(WARM_UP + messages, 300)
        for watcher in watchers:
            watcher.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                watcher.wait(60)
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for path in folder.glob("*.txt"):
        for line in path.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            ours = [frame for frame in stack.split(";") if "postbud/" in frame and "/app/" not in frame]
            found = re.match(r"(.*) \(.*?postbud/(\w+)/(.*)\.py", ours[-1]) if ours else None
            packages[found[2] if found else "asyncio, uvloop"] += int(count)
            if found:
                functions[f"{found[2]}.{found[3].replace('/', '.')}: {found[1]}"] += int(count)
    return _shares(packages), _shares(functions, packages.total())


def _shares(counts: Counter[str], total: int = 0) -> list[tuple[str, float]]:
    return [(name, 100 * count / (total or counts.total() or 1)) for name, count in counts.most_common(14)]


def main() -> None:
    """Measure, print, and write the page's block if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--messages", type=int, default=8000)
    parser.add_argument("--octets", type=int, default=_USUAL_OCTETS)
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("perf is not here: apt-get install linux-perf")
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as name:
        micros, objects = by_object(arguments.messages, arguments.octets, Path(name))
        packages, functions = by_package(arguments.messages, arguments.octets, Path(name))
    interpreter = micros * dict(objects).get("Python and its modules", 0) / 100
    lines = [f"| {micros:,.0f} µs of CPU a message, all workers | µs | share |", "|---|---:|---:|"]
    lines += [f"| {title} | {micros * share / 100:,.0f} | {share:.0f} % |" for title, share in objects]
    lines += ["", "| of which Python, by our package | µs | share |", "|---|---:|---:|"]
    lines += [f"| {title} | {interpreter * share / 100:,.0f} | {share:.0f} % |" for title, share in packages]
    lines += ["", "| of which Python, the dearest functions | µs | share |", "|---|---:|---:|"]
    lines += [f"| `{title}` | {interpreter * share / 100:,.0f} | {share:.1f} % |" for title, share in functions]
    text = "\n".join(lines)
    print(text)
    report.save(
        "microseconds",
        {"machine": report.machine(), "octets": arguments.octets, "micros": micros, "objects": objects, "packages": packages},
    )
    if arguments.write:
        report.write_block("microseconds" if arguments.octets == _USUAL_OCTETS else f"microseconds {arguments.octets}", text)


if __name__ == "__main__":
    main()
