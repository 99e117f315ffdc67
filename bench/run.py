"""`make bench`: Postbud and its peers under the same loads in one run, interleaved; tables with ratios.

Run: python -m bench.run [--full] [--write] [--rounds 3] [--only postbud,postfix]

Each round runs every party once, each time in a new folder; the order turns by one from round to round. Without `--full`: load
A end to end at 4 KiB. Needs root (Postfix, namespaces) and a Debian machine.
"""

import argparse
import datetime
import os
import signal
import statistics
import sys
from collections.abc import Callable
from functools import partial

from bench import generator, idle, load, report
from bench.parties import PARTIES, Party, install

Measure = Callable[[Party], dict[str, float]]
END_TO_END = "4 KiB, end to end"


class Run:
    """The figures so far."""

    def __init__(self, parties: list[Party], rounds: int) -> None:
        self.parties, self.rounds = parties, rounds
        self.results: report.Results = {}
        self.failures: dict[str, str] = {}

    def interleave(self, name: str, measure: Measure, parties: list[Party]) -> None:
        """Measure every party once a round; what fails is kept as a failure."""
        figures = self.results.setdefault(name, {})
        for number in range(self.rounds):
            turn = number % max(1, len(parties))
            for party in parties[turn:] + parties[:turn]:
                try:
                    found = measure(party)
                except (RuntimeError, TimeoutError, OSError, ExceptionGroup) as error:
                    self.failures[f"{name}: {party.name}"] = str(error).splitlines()[0][:200]
                    print(f"{name:28} {party.title:34} FAILED: {error}", flush=True)
                    continue
                figures.setdefault(party.name, []).append(found | {"round": number})
                told = "  ".join(f"{key} {value:.1f}" for key, value in found.items())
                print(f"{name:28} {party.title:34} {told}", flush=True)


def load_a(run: Run, arguments: argparse.Namespace) -> None:
    """Rates with smtp-source and smtp-sink."""
    run.interleave(END_TO_END, partial(load.end_to_end, messages=arguments.messages, octets=4096), run.parties)
    if arguments.full:
        large = arguments.messages * 3 // 10
        run.interleave("100 KB, end to end", partial(load.end_to_end, messages=large, octets=100_000), run.parties)
        run.interleave("4 KiB, next hop down", partial(load.accept_only, messages=arguments.messages, octets=4096), run.parties)


def load_b(run: Run, arguments: argparse.Namespace) -> report.Results:
    """Rates and latencies with AUTH and TLS; give the latencies."""
    parties = [party for party in run.parties if party.authenticates]
    name = "4 KiB, AUTH and TLS, accepted"
    run.interleave(name, partial(generator.most, messages=arguments.messages, octets=4096), parties)
    most = {party: statistics.median(found["rate"] for found in runs) for party, runs in run.results[name].items()}
    timed = Run(parties, run.rounds)
    half = {party: rate / 2 for party, rate in most.items()}

    def at(party: Party, rate_of: Callable[[str], float]) -> dict[str, float]:
        return generator.latencies(party, rate_of(party.name), arguments.seconds, 4096)

    timed.interleave("half of its own most", partial(at, rate_of=lambda name: half[name]), parties)
    if report.REFERENCE in half:
        timed.interleave("half of Postfix's most", partial(at, rate_of=lambda _: half[report.REFERENCE]), parties)
    run.failures |= timed.failures
    return timed.results


def main() -> int:
    """Install, measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="100 KB, next hop down, load B and idle sessions as well")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=20, help="of one run of latencies")
    parser.add_argument("--only", default="", help="names of parties, with commas")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("make bench needs root: Postfix, mount and PID namespaces")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what ends the parties
    install()
    wanted = arguments.only.split(",") if arguments.only else [party.name for party in PARTIES]
    parties = [party for party in PARTIES if party.name in wanted and party.is_there()]
    run = Run(parties, arguments.rounds)
    for party in PARTIES:
        if party.name in wanted and party not in parties:
            run.failures[f"{END_TO_END}: {party.name}"] = "could not be installed here"
    begun = datetime.datetime.now(datetime.UTC)
    load_a(run, arguments)
    timed = load_b(run, arguments) if arguments.full else {}
    idle_rows = idle.measure() if arguments.full else []
    figures = {
        "when": begun.isoformat(),
        "commit": report.commit(),
        "machine": report.machine(),
        "versions": report.versions(),
        "load": os.getloadavg(),
    }
    report.save("results", figures | {"rates": run.results, "latencies": timed, "idle": idle_rows, "failures": run.failures})
    text = f"{begun:%Y-%m-%d}, commit {report.commit()}; {report.machine()}; {arguments.rounds} rounds.\n\n" + report.rates(
        run.results, run.failures
    )
    if timed:
        text += "\n\n" + report.latency_table(timed)
    print("\n" + text)
    if idle_rows:
        print("\n" + idle.table(idle_rows))
    if arguments.write:
        report.write_block("tables", text)
        report.draw(run.results)
        if idle_rows:
            report.write_block("idle", idle.table(idle_rows))
    return 0 if not run.failures else 1


if __name__ == "__main__":
    sys.exit(main())
