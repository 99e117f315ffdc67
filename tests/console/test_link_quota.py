"""Leases: together never more than the allowance, and the same request never twice."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import connections

from postbud.console.accounts import audit
from postbud.console.accounts.services import create_account
from postbud.console.billing.services import create_plan
from postbud.console.link.models import QuotaLease
from postbud.console.link.quota import lease, month_of, used_of
from postbud.model.link import LeaseRequest
from tests.console.link_server import served

pytestmark = pytest.mark.usefixtures("database")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def ask(number: int, wanted: int = 100, account: str = "acct_a") -> LeaseRequest:
    return LeaseRequest(id=f"lease_{account}_{number}", node="n", spool=1, account=account, wanted=wanted)


def test_leases_end_where_the_allowance_ends() -> None:
    granted = [lease(ask(number), 250, NOW).granted for number in range(4)]
    assert granted == [100, 100, 50, 0]
    assert lease(ask(9), None, NOW).granted == 100
    assert lease(ask(10, account="acct_b"), 250, NOW).granted == 100


def test_the_same_lease_again_is_the_same_lease() -> None:
    assert [lease(ask(1), 250, NOW).granted for _ in range(3)] == [100, 100, 100]
    assert used_of("acct_a", NOW) == 100


def test_a_month_begins_anew_in_utc() -> None:
    assert lease(ask(1, 250), 250, NOW).granted == 250
    later = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC)
    given = lease(ask(2), 250, later)
    assert (given.granted, given.window, given.ends_at) == (100, "2026-12", datetime(2027, 1, 1, tzinfo=UTC))
    assert lease(ask(1, 250), 250, later).granted == 0
    assert month_of(datetime(2026, 1, 31, 23, 59, tzinfo=UTC)) == ("2026-01", datetime(2026, 2, 1, tzinfo=UTC))


def test_an_allowance_that_shrinks_grants_nothing_more_and_takes_nothing_back() -> None:
    lease(ask(1, 200), 250, NOW)
    shrunk = lease(ask(2), 150, NOW)
    assert (shrunk.granted, shrunk.used) == (0, 200)


def test_many_at_once_never_get_more_than_there_is() -> None:
    got: list[int] = []

    def worker(name: int) -> None:
        try:
            for number in range(10):
                request = ask(name * 100 + number, 7)
                got.append(lease(request, 300, NOW).granted)
                lease(request, 300, NOW)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), sum(got), used_of("acct_a", NOW)) == (60, 300, 300)


def test_the_allowance_is_the_plans_and_an_unknown_account_has_none(tmp_path: Path) -> None:
    plan = create_plan(audit.SYSTEM, "small", month_allowance=30)
    owner = create_account(audit.SYSTEM, "Ann", plan=plan)
    with served(tmp_path) as link, link.local() as relay:
        body = {"id": "l1", "node": "n", "spool": 1, "account": owner.id, "wanted": 50}
        answer = relay.post("/link/quota", json=body).json()
        assert (answer["granted"], answer["allowance"], answer["used"]) == (30, 30, 30)
        assert relay.post("/link/quota", json=body | {"account": "acct_none"}).status_code == 404
        for wrong in ({"wanted": -1}, {"wanted": 10**9}, {"id": ""}, {"id": "x" * 65}):
            assert relay.post("/link/quota", json=body | wrong).status_code == 400
    assert QuotaLease.objects.count() == 1
