"""Writes down what was measured: JSON of every figure, tables with ratios, and the generated blocks of docs/benchmarks.md."""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from bench.parties import CACHE, PARTIES, ROOT
from bench.plot import Bar, svg

PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
REFERENCE = "postfix"

# measure → party → the runs' figures, in order of the rounds
Results = dict[str, dict[str, list[dict[str, float]]]]


def machine(folder: str = "/var/tmp") -> str:
    """Say what this machine is, in a line."""
    text = Path("/proc/cpuinfo").read_text()
    processor = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=False).stdout.split()[-1]
    return (
        f"{os.cpu_count()} cores ({processor[1] if processor else platform.machine()}), {memory:.0f} GiB, queues on {disk}, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """Name the commit that was measured; a plus behind it: with changes on top."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def save(name: str, figures: Any) -> Path:
    """Write raw figures to build/bench."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    return path


def versions() -> dict[str, str]:
    """Give each party's version."""
    return {party.name: party.version() for party in PARTIES if party.is_there()}


def rates(results: Results, failures: dict[str, str]) -> str:
    """Give a table for each measure of rates: lowest, median and highest run, and the ratio of each round to plain Postfix."""
    found = versions()
    blocks = []
    for measure, parties in results.items():
        rows = []
        theirs = _by_round(parties.get(REFERENCE, []))
        for party in PARTIES:
            ours = _by_round(parties.get(party.name, []))
            failure = failures.get(f"{measure}: {party.name}")
            if ours:
                cells = [f"{value:,.0f}" for value in _spread(ours.values())]
                row = [party.title, found.get(party.name, ""), *cells, _ratio(ours, theirs)]
                rows.append(row)
            if failure:
                rows.append([party.title, found.get(party.name, ""), f"failed: {failure}", "", "", ""])
        head = [measure, "version", "min", "median", "max", "to Postfix"]
        blocks.append(_table(head, rows))
    return "\n\n".join(blocks)


def latency_table(results: Results) -> str:
    """Give the table of latencies in milliseconds: the median of the runs of each percentile."""
    titles = {party.name: party.title for party in PARTIES}
    rows = []
    for measure, parties in results.items():
        for name, runs in parties.items():
            points = [statistics.median(run[point] for run in runs) for point in ("p50", "p95", "p99")]
            spread = f"{min(run['p99'] for run in runs):.0f} to {max(run['p99'] for run in runs):.0f}"
            rate = statistics.median(run["rate"] for run in runs)
            rows.append([titles[name], measure, f"{rate:.0f}/s", *(f"{value:.1f}" for value in points), spread])
    return _table(["latency to 250, ms", "load", "rate", "p50", "p95", "p99", "p99 of the runs"], rows)


def _by_round(runs: list[dict[str, float]]) -> dict[float, float]:
    return {run["round"]: run["rate"] for run in runs}


def _spread(values: Collection[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def _ratio(ours: dict[float, float], theirs: dict[float, float]) -> str:
    each = [rate / theirs[number] for number, rate in ours.items() if number in theirs]
    if not each:
        return "no Postfix"
    middle = statistics.median(ours.values()) / statistics.median(theirs.values())
    return f"{middle:.2f} ({min(each):.2f} to {max(each):.2f})"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_block(name: str, text: str) -> None:
    """Replace a generated block of the page."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not rest:
        raise ValueError(f"{PAGE} has no block {name}")
    PAGE.write_text(f"{before}{begin}{text}\n{end}{after}")


def draw(results: Results) -> None:
    """Draw end to end rates, fastest first."""
    charts: dict[str, list[Bar]] = {}
    for measure, parties in results.items():
        bars = []
        for party in PARTIES:
            runs = _by_round(parties.get(party.name, []))
            if runs:
                bars.append(Bar(party.title, *_spread(runs.values()), party.layers[0] == "postbud"))
        if bars and "end to end" in measure:
            charts[f"Messages a second, {measure}"] = sorted(bars, key=lambda bar: -bar.median)
    if charts:
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(svg(charts))
