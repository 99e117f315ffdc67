"""A log that cannot be written never stops mail (row 60)."""

import json
import os
from pathlib import Path

import pytest

from postbud.telemetry.logs import Lines, configure
from postbud.telemetry.metrics import SERIES, combine, render


@pytest.mark.row("60")
def test_a_pipe_that_nobody_reads_drops_lines_and_blocks_nobody() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer, limit=100)
    for number in range(20_000):
        lines.msg(f"{number} " + "x" * 200)
    assert lines.dropped > 0
    os.close(reader)
    lines.close()
    os.close(writer)


def test_lines_come_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer)
    for number in range(100):
        lines.msg(str(number))
    lines.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read().split() == [str(number) for number in range(100)]
    assert lines.dropped == 0


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="log level"):
        configure(level="loud", as_json=True, worker="0")


def test_workers_numbers_add_up_or_take_the_largest() -> None:
    totals = combine(
        [
            {"postbud_messages_accepted": 2, "postbud_loop_lag_seconds": 0.1, "unknown": 1},
            {"postbud_messages_accepted": 3, "postbud_loop_lag_seconds": 0.3},
        ]
    )
    assert totals == {"postbud_messages_accepted": 5, "postbud_loop_lag_seconds": 0.3}
    text = render(totals).decode()
    assert "postbud_messages_accepted_total 5.0" in text
    assert "postbud_loop_lag_seconds 0.3" in text
    assert all(series.text for series in SERIES.values())


def test_a_line_is_json_with_level_time_and_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    log, lines = configure(level="info", as_json=True, worker="7")
    log.debug("not shown")
    log.info("accepted", octets=5, path=Path("/x"))
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("bug", what="test")
    lines.close()
    first, second = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (first["event"], first["level"], first["worker"], first["octets"]) == ("accepted", "info", "7", 5)
    assert first["timestamp"].endswith("Z")
    assert "/x" in first["path"]
    assert second["level"] == "error"
    assert "ValueError: no" in second["exception"]
