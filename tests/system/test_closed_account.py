"""An account that is gone from the directory: its queued mail waits an hour for it, then ends as cancelled."""

from pathlib import Path

from postbud.link.replica import Directory
from postbud.spool.values import Filter
from tests.system.test_scheduler import Choosy, running, until

NOBODY = Directory.of([])


async def test_mail_of_an_account_that_is_gone_for_an_hour_is_cancelled_and_never_sent(tmp_path: Path) -> None:
    server = Choosy()
    async with running(tmp_path, server) as bench:
        bench.replica.replace(NOBODY)
        new = await bench.put("a@x.example", "b@x.example", admit=True)
        wanted = Filter(message=new.message.id)
        await until(lambda: all(delivery.held_by for delivery in new.deliveries))
        for seconds in (0.0, 3500.0):
            bench.ahead_seconds[0] = seconds
            await bench.holds.review()
            assert await bench.events("cancelled") == 0
        bench.ahead_seconds[0] = 3700.0
        assert await bench.holds.review() == 2
        assert await bench.events("cancelled") == 2
        assert await bench.spool.find(wanted, 10, None) == []
        assert server.taken == []
        assert bench.bugs == []


async def test_the_hour_begins_anew_when_the_account_was_back(tmp_path: Path) -> None:
    server = Choosy()
    async with running(tmp_path, server) as bench:
        directory = bench.replica.directory
        bench.replica.replace(NOBODY)
        new = await bench.put("a@x.example", admit=True)
        await until(lambda: bool(new.deliveries[0].held_by))
        await bench.holds.review()
        bench.replica.replace(directory)
        assert await bench.holds.review() == 1
        await until(lambda: server.taken == [["a@x.example"]])
        bench.replica.replace(NOBODY)
        again = await bench.put("b@x.example", admit=True)
        await until(lambda: bool(again.deliveries[0].held_by))
        for seconds in (3500.0, 7000.0):
            bench.ahead_seconds[0] = seconds
            await bench.holds.review()
        assert await bench.events("cancelled") == 0
