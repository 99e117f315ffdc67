"""Fifty messages of 40 MiB at once: bounded memory, and small mail goes through."""

import threading
import time
from collections.abc import Callable

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import rss_bytes
from tests.system.smtp import Wire, make_content, new_test_id, queued_id, submit

MIB = 1024 * 1024
COUNT, SIZE, RSS_LIMIT = 50, 40 * MIB, 400 * MIB
LINE = b"The quick brown fox jumps over the lazy dog 0123456789 and does it again.\r\n"


def _send_large(port: int, test_id: str, replies: dict[str, int]) -> None:
    with Wire(port, timeout=170) as wire:
        wire.hello()
        wire.auth()
        wire.expect(f"MAIL FROM:<printer@acme.example> SIZE={SIZE}", 250)
        wire.expect(f"RCPT TO:<large-{test_id}@dest.example>", 250)
        wire.expect("DATA", 354)
        wire.send(make_content(test_id, 500))
        chunk = LINE * (256 * 1024 // len(LINE))
        for _ in range(SIZE // len(chunk)):
            wire.send(chunk)
        wire.send(b".\r\n")
        replies[test_id] = wire.reply().code


@pytest.mark.timeout(400)
def test_fifty_large_messages_at_once_stay_in_memory_bounds_and_stall_no_small_one(pair: Callable[..., Pair]) -> None:
    relay, sink = pair(Settings(workers=2, relay={"connections_per_site": 10}))
    sink.close()
    sink.start("--no-content")
    replies: dict[str, int] = {}
    test_ids = [new_test_id() for _ in range(COUNT)]
    port = relay.ports["cleartext"]
    threads = [threading.Thread(target=_send_large, args=(port, test_id, replies), daemon=True) for test_id in test_ids]
    peak, worst, small = 0, 0.0, []
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and time.monotonic() - began < 240:
        peak = max(peak, *map(rss_bytes, relay.workers()))
        at = time.monotonic()
        try:
            small.append(queued_id(submit(port, make_content(new_test_id()), ["small@dest.example"], source="127.0.0.20")))
        except OSError as error:
            raise AssertionError(f"a small message was stalled: {error}") from error
        worst = max(worst, time.monotonic() - at)
        time.sleep(0.2)
    accepted_after = time.monotonic() - began
    large = lambda record: record["recipients"][0].startswith("large-")  # noqa: E731  (used twice below)
    while len([record for record in sink.received() if large(record)]) < COUNT and time.monotonic() - began < 360:
        peak = max(peak, *map(rss_bytes, relay.workers()))
        time.sleep(0.5)
    print(
        f"{COUNT} x {SIZE // MIB} MiB accepted in {accepted_after:.1f} s, delivered in {time.monotonic() - began:.1f} s; "
        f"peak RSS of a worker {peak / MIB:.0f} MiB; {len(small)} small messages meanwhile, the slowest took {worst:.2f} s"
    )
    assert [replies.get(test_id) for test_id in test_ids] == [250] * COUNT
    assert peak < RSS_LIMIT
    assert worst < 20
    assert len({record["test_id"] for record in sink.received() if large(record)}) == COUNT
    relay.wait_final(set(small))
