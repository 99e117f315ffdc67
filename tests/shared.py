"""Where the test data of others lies: beside the repository, never in it."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """Give a folder of shared test data; skip the test, saying so, where it is missing."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no ../shared/data/{name} beside the repository")
    return folder
