"""What all tests share: markers of rows travel with their reports, and the run ends by saying which rows it showed."""

from collections import defaultdict
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", action="store_true", help="at the end, list each row with its tests and their outcomes")


def rows_of(item: pytest.Item) -> list[str]:
    """Give the rows of the specification that a test bears."""
    return [str(row) for marker in item.iter_markers("row") for row in marker.args]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.extend(("row", row) for row in rows_of(item))


def row_key(row: str) -> tuple[str, int, str]:
    """Sort A2 before A10, and numbers after letters."""
    letters = row.rstrip("0123456789")
    return (letters or "~", int(row[len(letters) :] or 0), row)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    outcomes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if report.when == "call" or outcome in {"skipped", "error"}:
                for name, row in getattr(report, "user_properties", ()):  # a module that does not import has none
                    if name == "row":
                        outcomes[row].append((outcome, report.nodeid))
    if not outcomes:
        return
    by_verdict: dict[str, list[str]] = defaultdict(list)
    for row in sorted(outcomes, key=row_key):
        seen = {outcome for outcome, _ in outcomes[row]}
        verdict = "failed" if seen & {"failed", "error"} else "passed" if "passed" in seen else "skipped"
        by_verdict[verdict].append(row)
    terminalreporter.section("rows of the specification")
    for verdict in ("passed", "skipped", "failed"):
        if by_verdict[verdict]:
            terminalreporter.write_line(f"{verdict} ({len(by_verdict[verdict])}): {' '.join(by_verdict[verdict])}")
    if config.getoption("--rows"):
        for row in sorted(outcomes, key=row_key):
            for outcome, nodeid in outcomes[row]:
                terminalreporter.write_line(f"{row}\t{outcome}\t{nodeid}")
