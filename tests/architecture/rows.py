"""Which rows of the specification of bad inputs and faults have tests, and which have none.

Run: python -m tests.architecture.rows [--write]

`--write` puts the table into `docs/rows.md`. Rows asked for are listed here; what each says stands in that page, above
the table, and in the tests themselves.
"""

import re
import subprocess
import sys
from collections import defaultdict

from tests.architecture.source import DOCS, ROOT

PAGE = DOCS / "rows.md"
BEGIN = "<!-- made by `python -m tests.architecture.rows --write` -->"


def _span(letter: str, first: int, last: int, without: tuple[int, ...] = ()) -> list[str]:
    return [f"{letter}{number}" for number in range(first, last + 1) if number not in without]


INPUTS = (
    *_span("A", 1, 12),
    "B1",
    *_span("C", 1, 10, (6,)),
    *_span("D", 1, 17),
    *_span("E", 1, 13),
    *_span("F", 1, 8),
    *_span("G", 1, 14),
    *_span("H", 1, 4),
    *_span("I", 1, 10),
    *_span("K", 1, 7),
    "K9",
)
FAULTS = tuple(str(number) for number in (*range(1, 21), *range(23, 32), *range(33, 40), 42, 45, 46, 56, 58))
ASKED = (*INPUTS, *FAULTS)


def collected() -> dict[str, list[str]]:
    """Ask pytest which tests bear which rows: row → names of tests, parameters left out."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "tests.architecture.rows_plugin",
            "-p",
            "no:randomly",
            "tests",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found: dict[str, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        if line.startswith("ROW\t"):
            _, row, nodeid = line.split("\t")
            test = re.sub(r"\[.*\]$", "", nodeid)
            if test not in found[row]:
                found[row].append(test)
    if not found and done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return found


def claimed() -> dict[str, list[str]]:
    """What `docs/rows.md` says: row → names of tests."""
    rows = re.findall(r"^\| (\w+) \| (`.+`) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {row: re.findall(r"`([^`]+)`", tests) for row, tests in rows}


def table(found: dict[str, list[str]]) -> str:
    """The table as Markdown."""
    lines = [BEGIN, "", "| row | tests |", "|---|---|"]
    for row in (*ASKED, *sorted(set(found) - set(ASKED))):
        tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in sorted(found.get(row, []))) or "none yet"
        lines.append(f"| {row} | {tests} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print what is missing; write the page when asked."""
    found = collected()
    missing = [row for row in ASKED if row not in found]
    print(f"rows asked for: {len(ASKED)}; with a test: {len(ASKED) - len(missing)}; without: {' '.join(missing) or 'none'}")
    further = sorted(set(found) - set(ASKED))
    if further:
        print(f"further rows with a test: {' '.join(further)}")
    if "--write" in sys.argv:
        text = PAGE.read_text("utf-8")
        PAGE.write_text(text[: text.index(BEGIN)] + table(found), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
