"""The scheduler over a real spool, the real way out and a small real server on loopback that can be slow or choosy."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postbud.app.parts import shipped_classifier
from postbud.delivery.attempt import Attempts, DeliveryCounters
from postbud.delivery.cache import ContentCache
from postbud.delivery.capture import Captures
from postbud.delivery.held import HeldOctets
from postbud.delivery.holds import Holds
from postbud.delivery.notify import Notifier, NotifySettings
from postbud.delivery.offload import Offload
from postbud.delivery.record import Recorder
from postbud.delivery.scheduler import Scheduler, SchedulerSettings
from postbud.delivery.signing import Signer
from postbud.egress.egress import Egress
from postbud.egress.limits import NodeLimits
from postbud.egress.settings import EgressSettings, RouteSettings, TlsMode
from postbud.link.replica import Directory, Replica
from postbud.mime.body import scan_body
from postbud.model.account import Account, Credential, DkimKey, Domain, Kind, Server
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.shaping.backoff import RetrySchedule
from postbud.shaping.limits import SiteLimits
from postbud.spool.sqlite import Spool
from postbud.spool.values import Batch, Filter, NewMessage, SpoolSettings
from postbud.telemetry.logs import configure

BODY = b"hello\r\n"


@dataclass
class Choosy:
    """A server that takes so many connections at once, and so many seconds for each message."""

    connections: int = 1000
    seconds: float = 0.0
    reply_to_rcpt: bytes = b"250 2.1.5 Ok"
    open: int = 0
    refused: int = 0
    taken: list[list[str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if self.open > self.connections:
                self.refused += 1
                writer.write(b"421 4.7.0 too many connections from you\r\n")
                await writer.drain()
                return
            writer.write(b"220 choosy.example ESMTP\r\n")
            recipients: list[str] = []
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    while await reader.readline() != b".\r\n":
                        pass
                    await asyncio.sleep(self.seconds)
                    self.taken.append(recipients)
                    recipients = []
                    writer.write(b"250 2.0.0 Ok\r\n")
                elif verb == b"RCPT":
                    recipients.append(line.decode().partition("<")[2].partition(">")[0])
                    writer.write(self.reply_to_rcpt + b"\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 2.0.0 Bye\r\n")
                    await writer.drain()
                    return
                else:
                    writer.write(b"250 2.0.0 Ok\r\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            self.open -= 1
            writer.close()


@dataclass
class Bench:
    """What a test holds in its hands."""

    spool: Spool
    scheduler: Scheduler
    holds: Holds
    notifier: Notifier
    bugs: list[str]
    replica: Replica
    ahead_seconds: list[float]  # how far the holds' clock runs ahead

    async def put(self, *recipients: str, due_in: float = 0.0, admit: bool = False, account: str = "acct_a") -> NewMessage:
        now = time.time()
        message_id = self.spool.ids.message()
        message = Message(
            id=message_id, account=AccountId(account), server=ServerId("srv_a"), credential=CredentialId("crd_a"),
            reverse_path="s@acme.example", signing_domain="acme.example", from_domain="acme.example",
            received_at=datetime.now(UTC), size_octets=30,
        )  # fmt: skip
        deliveries = [
            Delivery(
                id=self.spool.ids.delivery(), message_id=message_id, mailbox=recipient, domain=recipient.rpartition("@")[2],
                due_at=now + due_in, expires_at=now + 86400, created_at=now,
            )
            for recipient in recipients
        ]  # fmt: skip
        new = NewMessage(message, Content(b"From: s@acme.example\r\n", BODY, scan_body(BODY)), deliveries)
        await self.spool.commit(Batch(messages=[new]))
        if admit:
            self.scheduler.admit(new.message, new.deliveries)
        return new

    async def events(self, kind: str) -> int:
        return sum(f'"kind":"{kind}"'.encode() in event for _, event in await self.spool.events_after(0, 10_000))


@asynccontextmanager
async def running(folder: Path, server: Choosy, *, active_limit: int = 20_000, connections: int = 20) -> AsyncIterator[Bench]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    spool = await Spool.open(folder / "spool", SpoolSettings(reserve_octets=1, reserve_inodes=1))
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = Account(
        id=AccountId("acct_a"), name="A", domains=(Domain("acme.example", (DkimKey("e1", pem),)),),
        servers=(Server(ServerId("srv_a"), Kind.TRANSACTIONAL, (Credential(CredentialId("crd_a")),)),),
    )  # fmt: skip
    replica = Replica(Directory.of([account]))
    log, lines = configure(level="error", as_json=True, worker="test")
    recorder = Recorder(RetrySchedule(), shipped_classifier(), spool.ids.event, time.time, random.random)
    notifier = Notifier(NotifySettings("relay.example", 86400), replica, spool.ids, time.time)
    limits = SiteLimits(connections=connections)
    route = RouteSettings(match="*", next_hop=f"127.0.0.1:{port}", tls=TlsMode.NONE, limits=limits)
    egress = Egress(EgressSettings(hostname="relay.example", routes=(route,)), dice=random.Random(1), clock=time.monotonic)
    bugs: list[str] = []
    signing = Offload("sign")
    signer = Signer(replica, signing, time.time)
    held = HeldOctets()
    ahead = [0.0]
    attempts = Attempts(
        spool, replica, signer, recorder, notifier, ContentCache(),
        lambda message, deliveries: scheduler.admit(message, deliveries),  # noqa: PLW0108 (it is made below)
        time.time, DeliveryCounters(), held, log,
    )  # fmt: skip
    node_limits = NodeLimits(folder / "site-limits", 0, time.time)
    scheduler = Scheduler(
        spool, egress, attempts, node_limits, SchedulerSettings(active_limit=active_limit), time.time, random.random,
        lambda what, error: bugs.append(f"{what}: {error!r}"), Captures(attempts, recorder, None, time.time),
    )  # fmt: skip
    holds = Holds(spool, scheduler, replica, recorder, notifier, signer.has_key, held, lambda: time.time() + ahead[0])
    task = asyncio.get_running_loop().create_task(scheduler.run())
    try:
        yield Bench(spool, scheduler, holds, notifier, bugs, replica, ahead)
    finally:
        scheduler.stop()
        await task
        listening.close()
        await spool.close()
        signing.close()
        lines.close()
        scheduler.close()


async def until(condition: object, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]  # a callable
            await asyncio.sleep(0.05)


async def test_a_site_that_takes_few_connections_gets_its_mail_over_those(tmp_path: Path) -> None:
    server = Choosy(connections=3, seconds=0.01)
    async with running(tmp_path, server) as bench:
        for number in range(60):
            await bench.put(f"u{number}@x.example", admit=True)
        await until(lambda: len(server.taken) >= 60)
        assert await bench.events("deferred") <= 20
        assert server.refused <= 25
        assert not bench.bugs


async def test_a_delivery_that_is_retried_by_hand_stands_in_its_lane_once(tmp_path: Path) -> None:
    server = Choosy(seconds=1.0)
    async with running(tmp_path, server, connections=1) as bench:
        await bench.put("busy1@x.example", admit=True)
        await bench.put("busy2@x.example", admit=True)
        victim = await bench.put("victim@x.example", due_in=1.2, admit=True)
        assert await bench.holds.retry(Filter(message=victim.message.id)) == 1
        await until(lambda: len(server.taken) >= 3)
        await asyncio.sleep(2.5)
        assert server.taken.count(["victim@x.example"]) == 1
        assert len(server.taken) == 3


async def test_an_exception_before_the_record_is_not_repeated_at_once(tmp_path: Path) -> None:
    server = Choosy()
    async with running(tmp_path, server) as bench:

        def fail(*_: object) -> object:
            raise RuntimeError("as if we had a bug")

        bench.notifier.reports = fail  # type: ignore[method-assign,assignment]  # the bug is the test
        await bench.put("u@x.example", admit=True)
        await until(lambda: bool(bench.bugs))
        await asyncio.sleep(3)
        assert len(server.taken) == 1
        assert (await bench.spool.gauges()).queued == 1


@pytest.mark.parametrize("active_limit", [1, 10, 900])
async def test_a_small_active_set_still_empties_the_disk(tmp_path: Path, active_limit: int) -> None:
    server = Choosy()
    async with running(tmp_path, server, active_limit=active_limit) as bench:
        for number in range(5):
            await bench.put(f"u{number}@x.example")
        await until(lambda: len(server.taken) >= 5)


@pytest.mark.row("18")
async def test_a_bounce_is_recorded_with_its_report_while_the_disk_is_below_its_reserve(tmp_path: Path) -> None:
    server = Choosy(reply_to_rcpt=b"550 5.1.1 nobody")
    async with running(tmp_path, server) as bench:
        await bench.put("u@x.example")
        bench.spool._reserve.has_space = False
        bench.scheduler.rouse()
        async with asyncio.timeout(20):
            while not await bench.events("bounced"):
                await asyncio.sleep(0.1)


@pytest.mark.row("17")
async def test_a_damaged_content_is_set_aside_and_not_tried_again(tmp_path: Path) -> None:
    server = Choosy()
    async with running(tmp_path, server) as bench:
        await bench.put("u@x.example", due_in=1.5)
        await bench.put("v@x.example", due_in=1.5)
        await bench.spool.run(
            lambda connection: connection.execute(
                "UPDATE message SET body = x'00' WHERE key = (SELECT min(key) FROM message)"
            ).fetchall()
        )
        bench.scheduler.rouse()
        await until(lambda: bool(server.taken))
        await until(lambda: bench.scheduler.gauges()["active_deliveries"] == 0)
        assert (await bench.spool.gauges()).quarantined >= 1
        assert server.taken == [["v@x.example"]]


@pytest.mark.row("55")
@pytest.mark.parametrize("most", [0, 10_000], ids=["by account", "by domain"])
async def test_a_long_queue_on_disk_keeps_nobody_else_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("postbud.delivery.scheduler._MAX_FULL", most)
    server = Choosy(seconds=0.3)
    async with running(tmp_path, server, connections=1, active_limit=20) as bench:
        for number in range(120):
            await bench.put(f"u@many{number}.example")
        await bench.put("v@one.example", account="acct_b", due_in=0.1)

        async def is_held() -> bool:  # an account that the directory does not know is held at its first attempt
            return await bench.events("held") > 0

        async with asyncio.timeout(60):
            while not await is_held():
                await asyncio.sleep(0.1)
        assert len(server.taken) < 80
        assert not bench.bugs
