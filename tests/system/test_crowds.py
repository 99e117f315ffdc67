"""Crowds beside ordinary mail: tarpits, a dead site's backlog, another account's backlog, a restart with a long queue.

Rows 40, 54, 55. Each measures what it means for mail to a good site (accepted to delivered, by the events) and prints it;
a test fails only far beyond the aim. `make soak` runs the same with a million. Ratios are of p99, and mean something above
some milliseconds only: on a machine with other work the shortest ones are its noise.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.harness import Relay, rss_bytes, wait_until
from tests.system.sites import Letter, Sites
from tests.system.synthetic import Heap, fill, half_due

LETTERS = 100
NOISE_SECONDS = 0.05
SERIAL = itertools.count()
GOOD, DEAD, SLOW = "good.example", "dead.example", "slow.example"
OWN_RULES = f"""
[[site]]
match = ["mx1.{SLOW}"]
connections = 2
"""
MILLION = pytest.param(1_000_000, marks=pytest.mark.soak)

MakeSites = Callable[..., Sites]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> MakeSites:
    def make_sites(*heaps: Heap, **relay: object) -> Sites:
        (tmp_path / "own.toml").write_text(OWN_RULES)
        settings = {"shaping_file": "own.toml", "retry_first_seconds": 300, "retry_max_seconds": 3600} | relay
        sites = Sites(tmp_path, settings, ttl=3600)  # the name server shares a thread with the next hops, which are busy
        request.addfinalizer(sites.close)
        sites.site(GOOD)
        if heaps:
            print(f"spool of {sum(heap.count for heap in heaps)} made in {fill(spool_of(sites.relay), *heaps):.0f} s")
        return sites

    return make_sites


def spool_of(relay: Relay) -> Path:
    return relay.data / "spool" / "worker-0"


def send_some(
    sites: Sites, domain: str = GOOD, count: int = LETTERS, username: str = "printer-1", every: float = 0.02
) -> list[Letter]:
    """Send letters at a pace, or as fast as the relay takes them, and wait for them."""
    letters = []
    for _ in range(count):
        began = time.monotonic()
        letters.append(sites.send(f"a{next(SERIAL)}@{domain}", username=username))
        time.sleep(max(0.0, every - (time.monotonic() - began)))
    sites.wait_final(*letters, seconds=120)
    return letters


def p99(sites: Sites, letters: list[Letter]) -> float:
    found = sites.latencies(*letters)
    assert len(found) == len(letters)
    print(f"  {len(found)} letters: median {found[len(found) // 2] * 1000:.0f} ms, worst {found[-1] * 1000:.0f} ms")
    return found[len(found) * 99 // 100 - 1]


def judge(what: str, alone: float, beside: float, aim: float) -> None:
    ratio = beside / alone
    print(f"{what}: p99 {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside it, {ratio:.2f} times (aim {aim})")
    assert max(beside, NOISE_SECONDS) / max(alone, NOISE_SECONDS) <= 10 * aim


def gauge(relay: Relay, name: str) -> float:
    return next(float(line.split()[1]) for line in relay.metrics().splitlines() if line.startswith(f"{name} "))


@pytest.mark.row("40")
@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data", "end"])
def test_tarpits_at_each_stage_hold_their_own_mail_only(make: MakeSites, stage: str) -> None:
    sites = make(timeout_scale=0.05, retry_first_seconds=1, retry_max_seconds=3)
    sites.start()
    domains = [f"tar{number}.{stage}.example" for number in range(200)]
    tarpit = sites.many(domains, {stage: {"reply": "250 slow", "drip": 3.0} if stage in ("mail", "end") else {"end": "hang"}})
    alone = p99(sites, send_some(sites))
    stuck = [sites.send(f"a@{domain}") for domain in domains]
    wait_until(lambda: tarpit.sessions >= len(domains) // 2, "the tarpits have connections", 60)
    good = send_some(sites)
    judge(f"{len(domains)} tarpits at {stage}", alone, p99(sites, good), 1.2)
    assert tarpit.open_now() > len(domains) // 4
    counts = sites.check(*good)
    assert (counts["events_delivered"], counts["events_deferred"], counts["duplicates"]) == (LETTERS, 0, 0)
    tarpit.script = {}
    sites.wait_final(*stuck, seconds=120)
    assert sites.check(*stuck)["events_delivered"] == len(stuck)


@pytest.mark.row("55")
@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.soak), MILLION])
def test_a_queue_for_a_dead_domain_keeps_nobody_else_waiting(make: MakeSites, count: int) -> None:
    sites = make(Heap(count, (DEAD,)))
    sites.site(DEAD, {"banner": {"end": "reset"}})
    sink = sites.sink_of(DEAD)
    sites.start()
    seen: list[float] = []
    first = send_some(sites, count=1)
    batches = []
    while not batches or (len(batches) < 1000 and gauge(sites.relay, "postbud_active_deliveries") > 100):
        batches += send_some(sites, count=20)
        seen.append(gauge(sites.relay, "postbud_active_deliveries"))
    beside = p99(sites, batches)
    if count <= 100_000:
        wait_until(lambda: gauge(sites.relay, "postbud_active_deliveries") < 100, "the dead site's mail is put off", 300)
        alone = p99(sites, send_some(sites))
        judge(f"{count} messages for a dead domain", alone, beside, 1.2)
    else:
        print(f"{count} messages for a dead domain: p99 {beside * 1000:.0f} ms beside it")
    assert "left alone, no connection" in sites.explain(DEAD)
    print(f"active set {max(seen):.0f} deliveries, {sink.sessions} connections to the dead site")
    assert max(seen) <= 7_000
    assert sink.sessions < 20
    counts = sites.check(*first, *batches)
    assert (counts["events_delivered"], counts["duplicates"]) == (len(first) + len(batches), 0)
    assert gauge(sites.relay, "postbud_queued_deliveries") == count


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_an_accounts_backlog_in_the_same_lane_leaves_others_their_turn(make: MakeSites, count: int) -> None:
    sites = make(Heap(count, (SLOW,), due_in=(20.0, 20.0)))
    sites.site(SLOW, {"end": {"reply": "250 2.0.0 taken", "wait": 0.02}})
    sites.start()
    alone = p99(sites, send_some(sites, SLOW, 60, "beta-1", 0.1))
    sink = sites.sink_of(SLOW)
    wait_until(lambda: len(sink.messages) > 100, "the backlog goes", 60)
    letters = send_some(sites, SLOW, 60, "beta-1", 0.1)
    assert len(sink.messages) < count, "the backlog was over too early"
    judge(f"{count} messages of another account in the lane", alone, p99(sites, letters), 2.0)
    assert sites.check(*letters)["events_delivered"] == len(letters)


@pytest.mark.row("54")
@pytest.mark.parametrize(("count", "due_now"), [(20_000, 2_000), pytest.param(1_000_000, 50_000, marks=pytest.mark.soak)])
def test_a_restart_with_a_long_queue_is_soon_ready_and_takes_new_mail_first(make: MakeSites, count: int, due_now: int) -> None:
    domains = tuple(f"d{number}.example" for number in range(100))
    sites = make(*half_due(count, due_now, domains))
    sink = sites.many(list(domains), {})
    began = time.monotonic()
    sites.relay.write_settings()
    sites.relay.start(wait=False)
    sites.relay.wait_ready(600)
    ready = time.monotonic() - began
    letters = send_some(sites)
    early = sink.most_open
    memory = [rss_bytes(pid) for pid in sites.relay.workers()]
    wait_until(lambda: len(sink.messages) >= due_now, "what was due is delivered", 900, every=0.5)
    memory += [rss_bytes(pid) for pid in sites.relay.workers()]
    seconds = time.monotonic() - began - ready
    print(
        f"{count} queued, {due_now} due: ready in {ready:.1f} s, at most {max(memory) >> 20} MiB a worker, new mail p99 "
        f"{p99(sites, letters):.2f} s, {early} connections to {len(domains)} sites at first, all due mail in {seconds:.0f} s"
    )
    assert ready <= 60
    assert max(memory) <= 600 << 20
    assert gauge(sites.relay, "postbud_queued_deliveries") <= count - due_now
    counts = sites.check(*letters)
    assert (counts["events_delivered"], counts["duplicates"]) == (len(letters), 0)
