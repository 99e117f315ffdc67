"""Faults of the process and its machine: signals, descriptors, clock, blocked loop, many clients (rows 12-58)."""

import base64
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import Pair
from tests.system.directory import Settings
from tests.system.harness import Relay, is_zombie, wait_until
from tests.system.invariants import check_relay
from tests.system.load import Load
from tests.system.smtp import Wire, content_digest, make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]


def finish(relay: Relay, sink: object, folder: Path) -> dict[str, int]:
    """Wait until all is final, check P1-P6, give the counts."""
    relay.wait_ready()
    relay.wait_drained()
    time.sleep(0.7)
    report = check_relay(relay, sink, folder / "client.jsonl")
    assert not report.violations, report.as_json()
    return report.counts


def one_gets_through(relay: Relay, source: str | None = None) -> str:
    return queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), ["a@dest.example"], source=source))


def submit_noted(relay: Relay, folder: Path, recipients: list[str]) -> str:
    """Submit one message, note its 250 in the client's log; give its id."""
    content = make_content(new_test_id())
    message = queued_id(submit(relay.ports["cleartext"], content, recipients))
    test_id, digest = content_digest(content)
    record = {"test_id": test_id, "sha256": digest, "recipients": recipients, "account": "acct_acme", "message": message}
    with (folder / "client.jsonl").open("a") as log:
        log.write(json.dumps(record | {"state": "queued"}) + "\n")
    return message


@pytest.mark.row("12")
def test_sigterm_under_load_ends_soon_and_loses_nothing(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair(Settings(workers=2))
    load = Load(relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=6).start()
    time.sleep(3.0)
    began = time.monotonic()
    status = relay.stop(30)
    print(f"SIGTERM under load took {time.monotonic() - began:.1f} s")
    load.stop()
    assert status == 0
    before = {event["id"] for event in relay.events()}
    relay.start()
    counts = finish(relay, sink, tmp_path)
    assert counts["client_queued"] > 20
    assert counts["duplicates"] == 0
    assert before <= {event["id"] for event in relay.events()}


@pytest.mark.row("12")
def test_sigterm_tells_idle_sessions_and_refuses_new_ones(pair: Make) -> None:
    relay, _ = pair()
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        assert relay.process is not None
        relay.process.send_signal(signal.SIGTERM)
        reply = wire.reply()
        assert (reply.code, reply.enhanced) == (421, "4.3.2")
    assert relay.process.wait(30) == 0
    assert not relay.greets()


@pytest.mark.row("20")
def test_a_worker_without_descriptors_recovers_and_loses_nothing(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair()
    (worker,) = relay.workers()
    load = Load(
        relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=4, pause_seconds=0.05, sizes=(4096, 300_000),
        messages_per_session=3,
    ).start()  # fmt: skip
    wait_until(lambda: load.counts["queued"] > 5, "mail is taken")
    in_use = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (in_use + 12, in_use + 12))
    crowd = []
    try:
        for number in range(40):
            with contextlib.suppress(OSError):
                crowd.append(
                    socket.create_connection(
                        ("127.0.0.1", relay.ports["cleartext"]), 2, source_address=(f"127.0.4.{number + 1}", 0)
                    )
                )
        time.sleep(1.0)
        before = _cpu_seconds(worker)
        time.sleep(2.0)
        spent = _cpu_seconds(worker) - before
        print(f"CPU while out of descriptors: {spent:.2f} s in 2 s")
        assert spent < 1.5  # no busy loop
        assert not is_zombie(worker)
    finally:
        for each in crowd:
            each.close()
    wait_until(lambda: _greets_once(relay), "it greets again", 20)
    queued = load.counts["queued"]
    wait_until(lambda: load.counts["queued"] > queued + 5, "mail is taken again")
    load.stop()
    counts = finish(relay, sink, tmp_path)
    assert counts["duplicates"] == 0
    assert counts["sink_messages"] >= counts["client_queued"] > 10
    assert relay.workers() == [worker]


def _greets_once(relay: Relay) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", relay.ports["cleartext"]), 2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.row("23")
def test_a_worker_that_was_stopped_for_a_while_goes_on(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair(Settings(workers=2))
    load = Load(relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=4, pause_seconds=0.02).start()
    time.sleep(1.0)
    victim = relay.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    time.sleep(6.0)
    os.kill(victim, signal.SIGCONT)
    time.sleep(1.0)
    load.stop()
    assert victim in relay.workers()
    assert finish(relay, sink, tmp_path)["duplicates"] == 0


@pytest.mark.row("25")
def test_a_worker_whose_loop_is_blocked_is_started_again(pair: Make, tmp_path: Path) -> None:
    relay, sink = pair()
    load = Load(relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=4, pause_seconds=0.02).start()
    time.sleep(2.0)
    (victim,) = relay.workers()
    began = time.time()
    os.kill(victim, signal.SIGSTOP)  # to the supervisor this looks as any loop that does not turn
    wait_until(lambda: is_zombie(victim), "the watchdog ends it", 60)
    print(f"the watchdog took {time.time() - began:.1f} s")
    wait_until(lambda: relay.workers() and relay.workers() != [victim], "another is started", 20)
    relay.kill_times += [began, time.time()]
    load.stop()
    finish(relay, sink, tmp_path)


@pytest.mark.row("24")
@pytest.mark.parametrize(
    "jumps", [("+86400",), ("-86400",), ("+3600", "-3600", "+1", "-1")], ids=["a day on", "a day back", "hours and seconds"]
)
def test_a_clock_that_jumps_expires_nothing_and_delivers_all_once(pair: Make, tmp_path: Path, jumps: tuple[str, ...]) -> None:
    library = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    settings = Settings(relay={"expire_after_seconds": 1800})
    settings.routes = {"later.example": "127.0.0.1:1"}
    relay, sink = pair(settings, start=False)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    relay.start(
        env={
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )  # fmt: skip
    waiting = submit_noted(relay, tmp_path, ["a@later.example"])
    wait_until(lambda: any(event["kind"] == "deferred" for event in relay.events_of(waiting)), "deferred once")
    load = Load(relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=3, pause_seconds=0.05).start()
    for jump in (*jumps, "+0"):
        queued = load.counts["queued"]
        clock.write_text(jump)
        time.sleep(4.0 / len(jumps))
        wait_until(lambda queued=queued: load.counts["queued"] > queued, "mail is taken as before")  # type: ignore[misc]  # a default as closure
    load.stop()
    wait_until(lambda: [row["message"] for row in relay.queue()] == [waiting], "all else is delivered")
    assert {event["kind"] for event in relay.events_of(waiting)} == {"accepted", "deferred"}
    signed_at = [float(at) for one in sink.received() for at in re.findall(rb"\tt=(\d+);", base64.b64decode(one["content"]))]
    assert signed_at
    assert all(abs(at - time.time()) < 120 for at in signed_at)
    relay.command("queue", "cancel", "--config", "postbud.toml", waiting)
    assert finish(relay, sink, tmp_path)["duplicates"] == 0


@pytest.mark.row("58")
def test_five_hundred_connections_from_one_address_do_not_shut_others_out(pair: Make) -> None:
    relay, _ = pair(Settings(workers=1))
    crowd: list[socket.socket] = []
    greetings = {"220": 0, "421": 0, "other": 0}
    try:
        for _ in range(500):
            crowd.append(socket.create_connection(("127.0.0.1", relay.ports["cleartext"]), 10, source_address=("127.0.0.9", 0)))
        for each in crowd:
            each.settimeout(10)
            try:
                said = each.recv(200)
            except OSError:
                said = b""
            code = said[:3].decode()
            greetings[code if code in greetings else "other"] += 1
            if code == "421":
                assert said[4:9] in (b"4.7.0", b"4.3.2")
        print(greetings)
        assert greetings["220"] == 200
        assert greetings["421"] + greetings["other"] == 300
        assert greetings["421"] >= 290
        message = one_gets_through(relay, source="127.0.0.10")
        relay.wait_final({message})
    finally:
        for each in crowd:
            each.close()
    wait_until(lambda: _greets_once(relay), "the address is served again", 20)
    assert one_gets_through(relay, source="127.0.0.9")


@pytest.mark.row("58", "C4")
@pytest.mark.timeout(180)
def test_slow_data_and_unfinished_handshakes_are_ended_and_others_served(pair: Make) -> None:
    relay, sink = pair(Settings(relay={"min_content_octets_per_second": 100}))
    began = time.monotonic()
    slow, silent = Wire(relay.ports["cleartext"]), Wire(relay.ports["submission"])
    with slow, silent:
        silent.hello()
        silent.expect("STARTTLS", 220)  # and never a handshake
        slow.hello()
        slow.auth()
        slow.expect("MAIL FROM:<printer@acme.example>", 250)
        slow.expect("RCPT TO:<slowly@dest.example>", 250)
        slow.expect("DATA", 354)
        ends: dict[str, float] = {}
        for second in range(100):
            with contextlib.suppress(OSError):
                slow.send(b"a")
            for name, wire in (("slow", slow), ("silent", silent)):
                wire.socket.settimeout(0.5)
                with contextlib.suppress(TimeoutError, OSError):
                    if name not in ends and wire.socket.recv(1000) is not None:
                        ends[name] = time.monotonic() - began
            if len(ends) == 2:
                break
            if second % 10 == 0:
                one_gets_through(relay, source="127.0.0.10")
        print(f"ended after {ends} s")
        assert set(ends) == {"slow", "silent"}
        assert ends["silent"] < 25
    assert not [record for record in sink.received() if "slowly@dest.example" in record["recipients"]]


@pytest.mark.row("16")
def test_when_fsync_fails_nothing_is_promised_and_the_worker_ends(pair: Make, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    relay, sink = pair()
    load = Load(relay.ports["cleartext"], tmp_path / "client.jsonl", sessions=3, pause_seconds=0.01).start()
    time.sleep(1.5)
    (worker,) = relay.workers()
    began = time.time()
    tracer = subprocess.Popen(
        [strace, "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO",
         "-p", str(worker)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_zombie(worker), "the worker whose disk fails ends", 30)
    finally:
        tracer.terminate()
        tracer.wait(60)
    relay.kill_times += [began, time.time()]
    wait_until(lambda: relay.workers() and relay.workers() != [worker], "another is started", 20)
    time.sleep(1.5)
    load.stop()
    counts = finish(relay, sink, tmp_path)
    assert counts["client_queued"] > 20
