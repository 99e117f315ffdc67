"""What is forgotten, and when: the log and contents by plan, invitations, expired commands; and that the jobs do it."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postbud.console.accounts import membership
from postbud.console.accounts.models import Account, Invitation
from postbud.console.billing.services import create_plan
from postbud.console.configuration import ConsoleSettings
from postbud.console.jobs.loops import in_batches, loops
from postbud.console.link import services as link
from postbud.console.link.content import ContentStore
from postbud.console.link.models import Command, Content, LinkRecord, QuotaLease
from postbud.console.link.quota import lease
from postbud.console.mail import retention
from postbud.console.mail.ingest import ingest
from postbud.console.mail.models import DeliveryRow, EventRow, MessageRow, Rollup
from postbud.model.event import EventKind
from postbud.model.link import CommandKind, LeaseRequest, Selector
from tests.console.link_server import AT, Relay
from tests.console.making import CONSOLE, make_account

pytestmark = pytest.mark.usefixtures("database")
DAY = timedelta(days=1)


def account_with(days: int, name: str = "Acme") -> Account:
    made = make_account(name)
    made.plan = create_plan(CONSOLE, f"Plan of {name}", log_days=days, content_days=days)
    made.save(update_fields=["plan"])
    return made


def spool(account: Account, number: int = 7) -> Relay:
    return Relay(number, account.id)


def test_a_message_is_forgotten_with_all_that_belongs_to_it_and_the_figures_stay() -> None:
    account = account_with(30)
    relay = spool(account)
    accepted = relay.accepted("ann@b.example", "bob@b.example")
    ends = [relay.became(accepted, EventKind.DELIVERED, place=place) for place in range(2)]
    ingest(relay.batch(accepted, *ends))
    assert retention.prune_log(AT + 30 * DAY - timedelta(seconds=1)) == 0
    assert (MessageRow.objects.count(), EventRow.objects.count(), DeliveryRow.objects.count()) == (1, 3, 2)
    assert retention.prune_log(AT + 30 * DAY + timedelta(seconds=1)) == 1
    assert (MessageRow.objects.count(), EventRow.objects.count(), DeliveryRow.objects.count()) == (0, 0, 0)
    assert Rollup.objects.get(account=account.id, dimension="", key="").delivered == 2
    assert retention.prune_log(AT + 60 * DAY) == 0


def test_a_message_that_still_waits_stays_however_old_it_is() -> None:
    relay = spool(account_with(1))
    accepted = relay.accepted("ann@b.example", "bob@b.example")
    ingest(relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED)))
    assert retention.prune_log(AT + 9 * DAY) == 0
    assert DeliveryRow.objects.count() == 2
    ingest(relay.batch(relay.became(accepted, EventKind.BOUNCED, AT + 9 * DAY, place=1)))
    assert retention.prune_log(AT + 9 * DAY) == 1


def test_each_account_keeps_what_its_plan_says() -> None:
    short, long = account_with(7, "Short"), account_with(90, "Long")
    for number, account in enumerate((short, long)):
        relay = spool(account, number + 1)
        accepted = relay.accepted()
        ingest(relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED)))
    retention.prune_log(AT + 8 * DAY)
    assert list(MessageRow.objects.values_list("account", flat=True)) == [long.id]
    assert set(EventRow.objects.values_list("account", flat=True)) == {long.id}


def test_much_is_forgotten_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    relay = spool(account_with(1))
    for _ in range(5):
        accepted = relay.accepted()
        ingest(relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED)))
    assert [retention.prune_log(AT + 9 * DAY) for _ in range(4)] == [2, 2, 1, 0]


def test_contents_are_forgotten_by_plan_with_their_files(console: ConsoleSettings) -> None:
    short, long = account_with(1, "Short"), account_with(30, "Long")
    store = ContentStore(console.folder / "content")
    for account in (short, long):
        store.put(account.id, "srv_a", "msg_06h125sbk0000000000ai9u7uk", b"Subject: x\r\n\r\n", AT)
    assert retention.prune_content(AT + 2 * DAY) == 1
    assert retention.prune_content(AT + 2 * DAY) == 0
    assert list(Content.objects.values_list("account", flat=True)) == [long.id]
    (file,) = (path for path in (console.folder / "content").rglob("*") if path.is_file())
    assert file.parent.parent.name == long.id


def test_a_file_of_content_without_a_row_is_cleared_when_it_is_old(console: ConsoleSettings) -> None:
    account = account_with(30)
    store = ContentStore(console.folder / "content")
    store.put(account.id, "srv_a", "msg_06h125sbk0000000000ai9u7uk", b"Subject: x\r\n\r\n", AT)
    Content.objects.all().delete()
    now = datetime.now(UTC)
    assert retention.clear_leftovers(now) == 0
    assert retention.clear_leftovers(now + 2 * DAY) == 1


def test_invitations_are_forgotten_long_after_they_ended() -> None:
    invitation, _ = membership.invite(CONSOLE, make_account().id, "bo@acme.example", "viewer")
    assert membership.forget_invitations(invitation.expires_at + 89 * DAY) == 0
    assert membership.forget_invitations(invitation.expires_at + 91 * DAY) == 1
    assert not Invitation.objects.exists()


def test_expired_commands_are_withdrawn_and_old_leases_forgotten() -> None:
    account = make_account()
    command = link.issue_command(CommandKind.RETRY, Selector(account=account.id), account.id, AT)
    lease(LeaseRequest(id="lease_1", node="n", spool=1, account=account.id, wanted=5), 100, AT)
    assert link.clear(AT + timedelta(hours=1)) == 0
    assert link.clear(AT + timedelta(hours=25)) == 1
    assert LinkRecord.objects.get(kind="command", key=command.id).gone
    assert QuotaLease.objects.count() == 1
    assert link.clear(AT + 91 * DAY) == 2
    assert (Command.objects.count(), QuotaLease.objects.count()) == (0, 0)


def test_the_jobs_forget_all_of_it() -> None:
    named = {loop.name: loop for loop in loops()}
    wanted = {"clear-link", "prune-log", "prune-content", "clear-content", "forget-sessions", "forget-invitations"}
    assert wanted <= set(named)
    for name in sorted(wanted):
        named[name].work(threading.Event(), None)  # type: ignore[arg-type]  # they write no log
    for loop in named.values():
        loop.close()


def test_batches_go_on_until_nothing_is_left_or_the_console_stops() -> None:
    stop, left = threading.Event(), [3, 2, 1, 0, 9]

    def some(_now: Any) -> int:
        return left.pop(0)

    in_batches(some)(stop, None)  # type: ignore[arg-type]  # it writes no log
    assert left == [9]
    stop.set()
    in_batches(some)(stop, None)  # type: ignore[arg-type]  # as above
    assert left == []
