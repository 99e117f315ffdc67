"""How fast the spool takes, settles and reads mail: `python bench/spool.py [folder]`. Every commit is synced.

Prints rates for 4 KiB messages with concurrent appenders in one process, quiet and beside a busy event loop.
"""

import asyncio
import gc
import os
import resource
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from postbud.model.content import BodyFacts, Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, NewMessage, SpoolSettings

HEADER = b"".join(b"X-Field-%d: %s\r\n" % (number, b"v" * 60) for number in range(10))
BODY = (b"x" * 70 + b"\r\n") * 46
FACTS = BodyFacts(len(BODY), b"h" * 32)


def new_batch(spool: Spool) -> Batch:
    now = datetime.now(UTC)
    at = now.timestamp()
    message_id, delivery_id = spool.ids.message(), spool.ids.delivery()
    message = Message(
        id=message_id,
        account="acct_bench",
        server="srv_bench",
        credential="crd_bench",
        reverse_path="sender@bench.example",
        signing_domain="bench.example",
        from_domain="bench.example",
        received_at=now,
        size_octets=4096,
        subject="A subject of ordinary length",
        message_id="<20260101.1234567890@bench.example>",
        client="192.0.2.1",
    )
    delivery = Delivery(
        id=delivery_id,
        message_id=message_id,
        mailbox="rcpt@remote.example",
        domain="remote.example",
        due_at=at,
        expires_at=at + 345600,
        created_at=at,
    )
    event = Event(
        id=spool.ids.event(),
        kind=EventKind.ACCEPTED,
        at=now,
        account="acct_bench",
        server="srv_bench",
        credential="crd_bench",
        message=message_id,
        size_octets=4096,
        recipients=("rcpt@remote.example",),
        deliveries=(delivery_id,),
        subject=message.subject,
        message_id=message.message_id,
        from_domain="bench.example",
    )
    return Batch([NewMessage(message, Content(HEADER, BODY, FACTS), [delivery])], events=[event])


def final_batch(spool: Spool, delivery: Delivery) -> Batch:
    delivery.state = State.DELIVERED
    event = Event(
        id=spool.ids.event(),
        kind=EventKind.DELIVERED,
        at=datetime.now(UTC),
        account="acct_bench",
        server="srv_bench",
        credential="crd_bench",
        message=delivery.message_id,
        delivery=delivery.id,
        recipient=delivery.mailbox,
        site="mx.remote.example",
        host="mx1.remote.example",
        address="192.0.2.25",
        reply="250 2.0.0 Ok: queued as 4ABC",
    )
    return Batch(updates=[delivery], events=[event])


async def spread(total: int, tasks: int, work) -> float:
    left = total

    async def run() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(run())
    return total / (time.perf_counter() - started)


def burn(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))


async def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "bench-spool")
    total = int(os.environ.get("TOTAL", "20000"))
    shutil.rmtree(folder, ignore_errors=True)
    spool = await Spool.open(folder, SpoolSettings())
    deliveries: list[Delivery] = []

    async def append() -> None:
        batch = new_batch(spool)
        await spool.commit(batch)
        deliveries.extend(batch.messages[0].deliveries)

    async def busy_append() -> None:
        burn(150e-6)
        await append()

    async def settle() -> None:
        await spool.commit(final_batch(spool, deliveries.pop()))

    async def both() -> None:
        await append()
        await settle()

    def report(name: str, rate: float, before: tuple[float, int, int, float]) -> None:
        after = (time.process_time(), spool.counters.commits, spool.counters.batches, spool.counters.commit_seconds)
        cpu, commits, batches, seconds = (new - old for new, old in zip(after, before, strict=True))
        print(
            f"{name:34} {rate:8.0f}/s   {cpu / batches * 1e6:6.0f} us CPU/batch  {batches / max(commits, 1):5.1f} per commit"
            f"  {seconds / max(commits, 1) * 1e6:6.0f} us/COMMIT",
            flush=True,
        )

    def now() -> tuple[float, int, int, float]:
        return (time.process_time(), spool.counters.commits, spool.counters.batches, spool.counters.commit_seconds)

    async def measure(name: str, count: int, tasks: int, work) -> None:
        before = now()
        report(name, await spread(count, tasks, work), before)

    started = time.perf_counter()
    for _ in range(5000):
        new_batch(spool)
    print(f"(making a batch costs {(time.perf_counter() - started) / 5000 * 1e6:.0f} us)")
    await measure("append, 1 at a time", total // 20, 1, append)
    await measure("append, 50 at a time", total, 50, append)
    await measure("append, 500 at a time", total, 500, append)
    await measure("settle, 50 at a time", total, 50, settle)
    await measure("append+settle, 50 at a time", total, 50, both)
    await measure("append, 50, loop busy 150 us each", total // 2, 50, busy_append)
    started = time.perf_counter()
    found = (await spool.load_due(time.time() + 1, 5000, set())).deliveries
    print(f"load_due of {len(found)}: {(time.perf_counter() - started) * 1e3:.0f} ms")
    started = time.perf_counter()
    for message, _ in found[:2000]:
        await spool.content(message.id)
    print(f"content: {2000 / (time.perf_counter() - started):.0f}/s")
    started = time.perf_counter()
    print(await spool.gauges(), f"{(time.perf_counter() - started) * 1e3:.0f} ms")
    each = spool.counters.checkpoint_seconds / max(1, spool.counters.checkpoints)
    print(f"checkpoints {spool.counters.checkpoints}, {each * 1e3:.0f} ms each")
    await spool.close()
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    shutil.rmtree(folder)


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(main())
