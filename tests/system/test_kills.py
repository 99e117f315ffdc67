"""Kill -9 at random times, a few: `make soak` does a thousand."""

import json
from pathlib import Path

import pytest

from tests.soak import kills


@pytest.mark.row("4", "6", "7")
@pytest.mark.timeout(240)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    report = kills.run(15, tmp_path, seed=4)
    print(json.dumps(report, indent=2))
    assert not report["violations"]
    assert report["client"]["queued"] > 50
