"""What `make soak` runs of the whole relay."""

import json
from pathlib import Path

import pytest

from tests.soak import kills


@pytest.mark.soak
@pytest.mark.row("4")
@pytest.mark.timeout(0)
def test_a_thousand_random_kills_lose_nothing(tmp_path: Path) -> None:
    report = kills.run(1000, tmp_path)
    print(json.dumps(report, indent=2))
    assert not report["violations"]
    assert report["client"]["queued"] > 1000
