"""A pytest plugin that prints each test's rows instead of its name, for `rows.collected`."""

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print one line a row and test."""
    for item in session.items:
        for marker in item.iter_markers("row"):
            for row in marker.args:
                print(f"ROW\t{row}\t{item.nodeid}")
