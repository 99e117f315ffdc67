"""Hourly caps: exact for one process, and never exceeded by several, whichever of them dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postbud.link.quota import HourlyCaps
from postbud.link.replica import Grant
from postbud.model.account import Account, Credential, Kind, Server
from postbud.model.ids import AccountId, CredentialId, ServerId
from postbud.model.refusal import Refusal, Why

CAP = 600
WORKER = """
import os, sys, time
from pathlib import Path
from postbud.link.quota import HourlyCaps
from postbud.link.replica import Grant
from postbud.model.account import Account, Credential, Kind, Server
from postbud.model.refusal import Refusal
grant = Grant(Account("acct_a", ""), Server("srv_a", Kind.TRANSACTIONAL), Credential(id="crd_a", hourly_cap=int(sys.argv[3])))
caps = HourlyCaps(Path(sys.argv[1]), lambda: 1_000_000.0)
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
try:
    while True:
        caps.take(grant, 1)
        os.write(out, b".")
        time.sleep(0.0005)
except Refusal:
    os.write(out, b"!")
"""


def credential(
    name: str = "a", cap: int | None = 3, *, server: tuple[str, int | None] = ("a", None), account: int | None = None
) -> Grant:
    return Grant(
        Account(AccountId("acct_a"), "", hourly_cap=account),
        Server(ServerId(f"srv_{server[0]}"), Kind.TRANSACTIONAL, hourly_cap=server[1]),
        Credential(id=CredentialId(f"crd_{name}"), hourly_cap=cap),
    )


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def refused(caps: HourlyCaps, one: Grant, deliveries: int | None = None) -> bool:
    try:
        if deliveries is None:
            caps.check(one)
        else:
            caps.take(one, deliveries)
    except Refusal as refusal:
        assert refusal.why is Why.RATE
        assert "hourly cap" in refusal.public
        return True
    return False


def test_a_cap_is_used_whole_and_comes_back_with_time(tmp_path: Path) -> None:
    clock = Clock()
    caps = HourlyCaps(tmp_path / "quota", clock)
    assert refused(caps, credential(), 4)
    assert not refused(caps, credential(), 3)
    assert refused(caps, credential(), 1)
    assert refused(caps, credential())
    assert not refused(caps, credential("b"), 1)
    assert not refused(caps, credential("free", None), 1000)
    clock.now += 1200
    assert not refused(caps, credential())
    assert not refused(caps, credential(), 1)
    assert refused(caps, credential(), 1)
    caps.close()
    again = HourlyCaps(tmp_path / "quota", clock)
    assert refused(again, credential(), 1)
    clock.now += 3600
    assert not refused(again, credential(), 3)


def test_a_cap_of_nothing_lets_nothing_through(tmp_path: Path) -> None:
    caps = HourlyCaps(tmp_path / "quota", Clock())
    assert refused(caps, credential(cap=0))
    assert refused(caps, credential(cap=0), 1)


def test_all_caps_over_a_credential_are_used_or_none(tmp_path: Path) -> None:
    caps = HourlyCaps(tmp_path / "quota", Clock())
    printer = credential("printer", 10, server=("office", 6), account=8)
    scanner = credential("scanner", None, server=("office", 6), account=8)
    other = credential("other", None, server=("shop", None), account=8)
    assert not refused(caps, printer, 5)
    assert refused(caps, scanner, 2), "the server has 1 left"
    assert not refused(caps, scanner, 1), "and what was refused used nothing"
    assert refused(caps, printer, 1)
    assert not refused(caps, other, 2)
    assert refused(caps, other), "the account's cap is used up at MAIL, too"
    assert not refused(caps, credential("printer", 10), 5), "nothing of the credential's own was used by what was refused"
    with pytest.raises(Refusal) as over:
        caps.take(other, 1)
    assert "of this account is used up; try again in 450 seconds" in over.value.public


@pytest.mark.row("24")
def test_a_clock_that_jumped_back_shuts_nobody_out_for_long(tmp_path: Path) -> None:
    clock = Clock()
    caps = HourlyCaps(tmp_path / "quota", clock)
    assert not refused(caps, credential(), 3)
    clock.now -= 86400
    assert not refused(caps, credential(), 1)


def test_four_processes_never_exceed_a_cap_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    outs = [tmp_path / f"out{number}" for number in range(4)]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path / "quota"), str(out), str(CAP)], stdin=subprocess.DEVNULL)
        for out in outs
    ]
    try:
        deadline = time.monotonic() + 30
        while not (outs[0].exists() and outs[0].stat().st_size > 10) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(workers[0].pid, signal.SIGKILL)
        for worker in workers:
            worker.wait(60)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait(10)
    assert workers[0].returncode == -signal.SIGKILL
    assert all(out.read_bytes().endswith(b"!") for out in outs[1:])
    taken = sum(out.read_bytes().count(b".") for out in outs)
    assert CAP - 1 <= taken <= CAP  # the killed one may have taken one that it could not note
