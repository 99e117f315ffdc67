"""A process that works on a spool until it is killed, and the check that nothing it was told is lost.

Contents are made from their subject alone, so that a stored one can be compared whole. The log is written before and after
each commit by single writes, which outlive a kill of the process.
"""

import asyncio
import hashlib
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import DeliveryId, MessageId
from postbud.spool import failpoint
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Filter, NewMessage, SpoolSettings

SMALL = SpoolSettings(
    reserve_octets=0, reserve_inodes=0, settle_reserve_octets=64 * 1024, content_in_memory_octets=32 * 1024,
    checkpoint_octets=512 * 1024,
)  # fmt: skip


def octets_of(name: str, size: int) -> bytes:
    """Make the content that belongs to a name: any octet that changes shows."""
    line = hashlib.sha256(name.encode()).hexdigest().encode() + b"\r\n"
    return b"Subject: " + name.encode() + b"\r\nX-Size: " + str(size).encode() + b"\r\n\r\n" + line * (size // len(line))


def is_whole(content: Content) -> bool:
    """Tell whether a content is exactly what was made."""
    lines = content.header.decode().split("\r\n")
    name, size = lines[0].removeprefix("Subject: "), int(lines[1].removeprefix("X-Size: "))
    body = content.body if isinstance(content.body, bytes) else content.body.read_bytes()
    return content.header + b"\r\n" + body == octets_of(name, size) and len(body) == content.facts.octets


async def receive(spool: Spool, name: str, size: int) -> Content:
    """Receive the content of a name as a session would."""
    writer = spool.open_content()
    octets = octets_of(name, size)
    for start in range(0, len(octets), 65536):
        writer.write(octets[start : start + 65536])
        if writer.needs_drain:
            await writer.drain()
    return await writer.finish()


def accepted(spool: Spool, content: Content, recipients: int = 1, account: str = "acct_test") -> Batch:
    """Make the batch of an accepted message."""
    now = datetime.now(UTC)
    at = now.timestamp()
    message_id = spool.ids.message()
    message = Message(
        id=message_id, account=account, server="srv_test", credential="crd_test", reverse_path="a@b.example",
        signing_domain=None, from_domain="b.example", received_at=now, size_octets=content.octets,
    )  # fmt: skip
    deliveries = [
        Delivery(
            id=spool.ids.delivery(), message_id=message_id, mailbox=f"r{number}@d{number % 7}.example",
            domain=f"d{number % 7}.example", due_at=at, expires_at=at + 1e6, created_at=at,
        )
        for number in range(recipients)
    ]  # fmt: skip
    event = Event(
        id=spool.ids.event(), kind=EventKind.ACCEPTED, at=now, message=message_id,
        deliveries=tuple(delivery.id for delivery in deliveries),
    )  # fmt: skip
    return Batch([NewMessage(message, content, deliveries)], events=[event])


def delivered(spool: Spool, *deliveries: Delivery) -> Batch:
    """Make the batch that settles deliveries."""
    now = datetime.now(UTC)
    finals = [msgspec.structs.replace(delivery, state=State.DELIVERED) for delivery in deliveries]
    events = [
        Event(id=spool.ids.event(), kind=EventKind.DELIVERED, at=now, message=final.message_id, delivery=final.id)
        for final in finals
    ]
    return Batch(updates=finals, events=events)


def deferred(spool: Spool, delivery: Delivery) -> Batch:
    """Make the batch that puts a delivery off."""
    delivery.attempts += 1
    delivery.due_at += 60
    event = Event(
        id=spool.ids.event(), kind=EventKind.DEFERRED, at=datetime.now(UTC), message=delivery.message_id,
        delivery=delivery.id, attempt=delivery.attempts,
    )  # fmt: skip
    return Batch(updates=[delivery], events=[event])


async def append(spool: Spool, name: str, size: int = 2000, recipients: int = 1, account: str = "acct_test") -> NewMessage:
    """Accept a message."""
    batch = accepted(spool, await receive(spool, name, size), recipients, account)
    await spool.commit(batch)
    return batch.messages[0]


@dataclass
class Log:
    """What a client of the spool was told, over all its lives."""

    offered: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    settling: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> "Log":
        """Read a log; a kill may have cut the last line."""
        log = cls()
        for line in path.read_text().splitlines() if path.exists() else []:
            word, *ids = line.split()
            if word == "offer":
                log.offered[ids[0]] = ids[1:]
            elif word == "accepted":
                log.acknowledged.add(ids[0])
            elif word == "settle":
                log.settling.update(ids)
            elif word == "settled":
                log.settled.update(ids)
        return log


async def check(folder: Path, log: Log) -> int:
    """Open a spool and compare it with the log (P1, P3); give how many deliveries wait."""
    spool = await Spool.open(folder, SMALL)
    try:
        found = await spool.find(Filter(), 1_000_000)
        waiting = {delivery.id for _, delivery in found}
        messages = {message.id for message, _ in found}
        kinds = [msgspec.json.decode(data, type=Event) for _, data in await spool.events_after(0, 1_000_000)]
        assert max(Counter(event.id for event in kinds).values(), default=0) <= 1, "an event is there twice"
        accepted_events = {event.message: event for event in kinds if event.kind is EventKind.ACCEPTED}
        delivered_events = Counter(event.delivery for event in kinds if event.kind is EventKind.DELIVERED)
        for message_id in log.acknowledged:
            for delivery in log.offered[message_id]:
                state = (delivery in waiting) + (delivered_events[delivery])
                assert state == 1, f"{delivery} of an acknowledged message is in {state} states"
                assert delivery in log.settling or delivery in waiting, f"{delivery} is gone"
                assert delivery not in log.settled or delivery not in waiting, f"{delivery} is back"
            assert message_id in accepted_events
        for message_id in messages:
            assert is_whole((await spool.content(MessageId(message_id))).content), f"{message_id} is half"
            assert message_id in accepted_events, f"{message_id} has no event"
        for message_id, event in accepted_events.items():  # whole or absent, also when nobody was told
            for delivery in event.deliveries:
                assert (delivery in waiting) + delivered_events[delivery] == 1, f"{message_id} is half"
        assert list((folder / "incoming").iterdir()) == []
        contents = [(await spool.content(MessageId(message_id))).content for message_id in messages]
        files = {content.body for content in contents if isinstance(content.body, Path)}
        for _ in range(100):  # files of what the child settled are deleted after the commit
            if set((folder / "content").iterdir()) == files:
                break
            await asyncio.sleep(0.01)
        assert set((folder / "content").iterdir()) == files
        return len(waiting)
    finally:
        await spool.close()


async def work(folder: Path, log_path: Path, seed: int, seconds: float) -> None:
    """Append and settle until the time is up or the process is killed."""
    dice = random.Random(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    spool = await Spool.open(folder, SMALL)

    def note(*words: str) -> None:
        os.write(log, (" ".join(words) + "\n").encode())

    async def client() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            size = dice.choice([500, 3000, 3000, 20_000, 100_000])
            content = await receive(spool, f"{seed}-{dice.random()}", size)
            batch = accepted(spool, content, dice.choice([1, 1, 1, 3]))
            new = batch.messages[0]
            note("offer", new.message.id, *[delivery.id for delivery in new.deliveries])
            await spool.commit(batch)
            note("accepted", new.message.id)
            if dice.random() < 0.3:
                await spool.commit(deferred(spool, new.deliveries[0]))
            if dice.random() < 0.6:
                ids: list[DeliveryId] = [delivery.id for delivery in new.deliveries[: dice.choice([1, 3])]]
                note("settle", *ids)
                await spool.commit(delivered(spool, *new.deliveries[: len(ids)]))
                note("settled", *ids)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
    await spool.close()


if __name__ == "__main__":
    failpoint.configure(os.environ.get("POSTBUD_FAILPOINTS", ""))
    asyncio.run(work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
