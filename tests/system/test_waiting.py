"""Mail that waits for its turn at a site that says "slow down": it expires in time, and its sender is told (P3)."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.directory import Settings
from tests.system.harness import ROOT, Relay, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay whose next hop answers every MAIL with 421."""
    port = free_port()
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"mail": "421 4.7.0 slow down"}))
    command = [sys.executable, "tests/system/sink.py", "--listen", f"127.0.0.1:{port}", "--script", str(script)]
    sink = subprocess.Popen(command, cwd=ROOT)
    retries: dict[str, object] = {"expire_after_seconds": 15, "retry_first_seconds": 60, "retry_max_seconds": 600}
    relay = Relay(tmp_path / "relay", Settings(next_hop=f"127.0.0.1:{port}", relay=retries))
    try:
        relay.start()
        yield relay
    finally:
        relay.close()
        sink.kill()
        sink.wait(10)


@pytest.mark.row("41")
def test_what_waits_behind_a_slow_site_expires_in_time(relay: Relay) -> None:
    began = time.monotonic()
    messages = {
        queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), [f"r{n}@dest.example"])) for n in range(12)
    }

    def expired() -> bool:
        kinds = [(event["message"], event["kind"]) for event in relay.events() if event.get("message") in messages]
        return {message for message, kind in kinds if kind == "expired"} == messages

    wait_until(expired, "everything has expired", 90, 1.0)
    print(f"12 messages with 15 s to live had all expired after {time.monotonic() - began:.0f} s")
    events = [event for event in relay.events() if event.get("message") in messages and event["kind"] == "expired"]
    assert len(events) == 12
    assert any("waited for its turn" in event["reason"] for event in events)
    assert not [row for row in relay.queue() if row["message"] in messages]
