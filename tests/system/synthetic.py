"""Queues of any length, written straight into a worker's spool while no relay runs: what a long outage would leave.

Run: python -m tests.system.synthetic SPOOL_FOLDER COUNT DUE_NOW, to make the queue of row 54.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from postbud.mime.body import scan_body
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, NewMessage, SpoolSettings

_AT_ONCE = 2_000
_BODY = b"one line\r\n"


@dataclass(frozen=True)
class Heap:
    """So many messages of one account, each to one recipient, spread over domains; due within `due_in` from now, in seconds."""

    count: int
    domains: tuple[str, ...]
    account: str = "acct_acme"
    due_in: tuple[float, float] = (-60.0, -1.0)
    sender_domain: str = "acme.example"
    credential: str = "crd_printer_1"
    server: str = "srv_office"


def fill(folder: Path, *heaps: Heap) -> float:
    """Write heaps into a spool folder; give the seconds that it took."""
    started = time.monotonic()
    asyncio.run(_fill(folder, heaps))
    return time.monotonic() - started


async def _fill(folder: Path, heaps: tuple[Heap, ...]) -> None:
    spool = await Spool.open(folder, SpoolSettings(reserve_octets=0, settle_reserve_octets=0))
    try:
        for heap in heaps:
            made = _messages(spool, heap)
            while batch := [new for _, new in zip(range(_AT_ONCE), made, strict=False)]:
                await spool.commit(Batch(messages=batch))
    finally:
        await spool.close()


def _messages(spool: Spool, heap: Heap) -> Iterator[NewMessage]:
    dice = random.Random(heap.count)
    now = time.time()
    at = datetime.fromtimestamp(now, UTC)
    facts = scan_body(_BODY)
    for number in range(heap.count):
        identifier = spool.ids.message()
        domain = heap.domains[number % len(heap.domains)]
        header = f"From: <a@{heap.sender_domain}>\r\nTo: <r{number}@{domain}>\r\nSubject: {number}\r\n".encode()
        message = Message(
            id=identifier, account=AccountId(heap.account), server=ServerId(heap.server),
            credential=CredentialId(heap.credential), reverse_path="", signing_domain=None,
            from_domain=heap.sender_domain, received_at=at,
            size_octets=len(header) + len(_BODY),
        )  # fmt: skip
        delivery = Delivery(
            id=spool.ids.delivery(), message_id=identifier, mailbox=f"r{number}@{domain}", domain=domain,
            due_at=now + dice.uniform(*heap.due_in), expires_at=now + 4 * 86400, created_at=now, attempts=1,
        )  # fmt: skip
        yield NewMessage(message, Content(header, _BODY, facts), [delivery])


def half_due(count: int, due_now: int, domains: tuple[str, ...]) -> tuple[Heap, Heap]:
    """Give the queue of row 54: some due now, the rest within the next hours, after a first attempt."""
    return Heap(due_now, domains), Heap(count - due_now, domains, due_in=(600.0, 4 * 3600.0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("due_now", type=int)
    parser.add_argument("--domains", type=int, default=1000)
    words = parser.parse_args()
    domains = tuple(f"d{number}.example" for number in range(words.domains))
    print(f"{fill(words.folder, *half_due(words.count, words.due_now, domains)):.1f} s")


if __name__ == "__main__":
    main()
