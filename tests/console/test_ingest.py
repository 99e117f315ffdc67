"""Ingest: what a batch of events becomes, once, whatever is sent again, out of order or by several at once."""

import itertools
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection, connections

from postbud.console.fields import to_micros
from postbud.console.link.models import Command, SpoolMark
from postbud.console.mail import ingest as ingesting
from postbud.console.mail.ingest import ingest, mark_of
from postbud.console.mail.models import DeliveryRow, DeliveryState, EventRow, LatencyBin, MessageRow, Rollup
from postbud.model.event import EventKind
from postbud.model.link import EventBatch, NumberedEvent
from tests.console.link_server import AT, Relay

pytestmark = pytest.mark.usefixtures("database")


def delivery(event: NumberedEvent, place: int = 0) -> DeliveryRow:
    return DeliveryRow.objects.get(account=event.account, message=event.message, id=event.deliveries[place])


def total(account: str = "acct_a", dimension: str = "", key: str = "") -> Rollup:
    return Rollup.objects.get(account=account, dimension=dimension, key=key)


def test_a_message_and_its_deliveries_are_in_the_log() -> None:
    relay = Relay()
    accepted = relay.accepted("ann@b.example", "Bob@C.example", subject="Invoice 12", tag="t", message_id="<x@a.example>")
    said = {
        "reply": "250 2.0.0 Ok: queued",
        "enhanced": "2.0.0",
        "host": "mx.b.example",
        "site": "b.example",
        "latency_seconds": 1.5,
    }
    delivered = relay.became(accepted, EventKind.DELIVERED, AT + timedelta(seconds=1), **said)
    assert ingest(relay.batch(accepted, delivered)) == 2

    message = MessageRow.objects.get(account="acct_a", id=accepted.message)
    assert (message.subject, message.recipients, message.tag, message.at) == ("Invoice 12", 2, "t", AT)
    first, second = delivery(accepted), delivery(accepted, 1)
    assert (first.state, first.reply_code, first.enhanced, first.latency_ms) == ("delivered", 250, "2.0.0", 1500)
    assert (first.subject, first.recipient_domain, first.host) == ("Invoice 12", "b.example", "mx.b.example")
    assert (second.state, second.mailbox, second.recipient_domain) == ("queued", "Bob@C.example", "c.example")
    kinds = EventRow.objects.filter(account="acct_a", message=accepted.message).order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["accepted", "delivered"]


def test_the_same_batch_again_changes_nothing() -> None:
    relay = Relay()
    accepted = relay.accepted()
    batch = relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED))
    assert ingest(batch) == ingest(batch) == 2
    assert EventRow.objects.count() == 2
    assert (total().accepted, total().delivered) == (1, 1)


def test_a_batch_that_overlaps_the_mark_gives_only_what_is_new() -> None:
    relay = Relay()
    events = [relay.accepted() for _ in range(4)]
    assert ingest(relay.batch(*events[:2])) == 2
    assert ingest(relay.batch(*events[1:])) == 4
    assert (MessageRow.objects.count(), total().messages) == (4, 4)


def test_numbers_may_have_gaps() -> None:
    relay = Relay()
    first = relay.accepted()
    relay.seq = 1_000
    second = relay.accepted()
    assert ingest(relay.batch(first, second)) == 1_001
    assert mark_of(relay.spool) == 1_001


@pytest.mark.row("62")
def test_after_a_restore_the_lower_mark_takes_everything_again() -> None:
    relay = Relay()
    old, lost = relay.accepted(), relay.accepted()
    ingest(relay.batch(old))
    mark = mark_of(relay.spool)  # here somebody makes the backup
    assert ingest(relay.batch(lost)) == 2
    with connection.cursor() as cursor:  # and here it is brought back
        cursor.execute("DELETE FROM mail_event WHERE id = %s", (lost.id,))
        cursor.execute("DELETE FROM mail_message WHERE id = %s", (lost.message,))
        cursor.execute("DELETE FROM mail_delivery WHERE message = %s", (lost.message,))
    SpoolMark.objects.filter(spool=relay.spool).update(seq=mark)
    Rollup.objects.update(messages=1, accepted=1, octets=1000)
    assert mark_of(relay.spool) == 1
    assert ingest(relay.batch(old, lost)) == 2
    assert (MessageRow.objects.count(), total().messages) == (2, 2)


def test_an_event_that_came_under_another_spool_is_not_counted_twice() -> None:
    orphan, adopter = Relay(spool=7), Relay(spool=8)
    accepted = orphan.accepted()
    delivered = orphan.became(accepted, EventKind.DELIVERED)
    ingest(orphan.batch(accepted))
    new = adopter.accepted(account="acct_b")
    moved = EventBatch(node="n1", spool=8, events=(accepted, delivered))
    assert ingest(moved) == 2
    assert ingest(EventBatch(node="n1", spool=8, events=(_numbered(new, 3),))) == 3
    assert (total().accepted, total().delivered, total("acct_b").accepted) == (1, 1, 1)
    assert EventRow.objects.count() == 3


def _numbered(event: NumberedEvent, seq: int) -> NumberedEvent:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return NumberedEvent(**{**fields, "seq": seq})


@pytest.mark.row("8")
@pytest.mark.parametrize("stage", ["ROLLUPS", "DELIVERIES", "LATENCIES"])
def test_what_fails_half_way_leaves_nothing_and_comes_whole_the_next_time(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay()
    accepted = relay.accepted()
    batch = relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED))

    class KilledError(Exception):
        pass

    class Dying:
        def run(self, rows: object) -> int:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(ingesting.statements, stage, Dying())
        with pytest.raises(KilledError):
            ingest(batch)
    assert (EventRow.objects.count(), MessageRow.objects.count(), Rollup.objects.count(), mark_of(7)) == (0, 0, 0, 0)
    assert ingest(batch) == 2
    assert (EventRow.objects.count(), delivery(accepted).state, total().delivered) == (2, "delivered", 1)


FINAL = [
    EventKind.DELIVERED,
    EventKind.CAPTURED,
    EventKind.BOUNCED,
    EventKind.EXPIRED,
    EventKind.CANCELLED,
    EventKind.SUPPRESSED,
]


LATER = [EventKind.DEFERRED, EventKind.HELD, EventKind.RELEASED, EventKind.BOUNCED, EventKind.DELIVERED]


@pytest.mark.parametrize("together", [True, False])
def test_a_final_state_is_never_left(together: bool) -> None:
    relay = Relay()
    for kind, later in itertools.product(FINAL, LATER):
        accepted = relay.accepted()
        ended = relay.became(accepted, kind, AT + timedelta(seconds=5))
        after = relay.became(accepted, later, AT + timedelta(seconds=9), hold="pause")
        for part in [(accepted, ended, after)] if together else [(accepted,), (ended,), (after,)]:
            ingest(relay.batch(*part))
        assert delivery(accepted).state == kind.value, (kind, later)


@pytest.mark.parametrize("together", [True, False])
def test_an_older_event_does_not_undo_a_younger_one(together: bool) -> None:
    relay, other = Relay(spool=7), Relay(spool=8)
    accepted = relay.accepted()
    younger = relay.became(accepted, EventKind.DEFERRED, AT + timedelta(seconds=60), attempt=2, reply="451 4.7.1 later")
    older = other.became(accepted, EventKind.DEFERRED, AT + timedelta(seconds=5), attempt=1, reply="421 4.3.2 busy")
    if together:
        ingest(relay.batch(accepted, younger, _numbered(older, 9)))
    else:
        ingest(relay.batch(accepted, younger))
        ingest(other.batch(older))
    row = delivery(accepted)
    assert (row.reply_code, row.attempts, row.updated_at) == (451, 2, AT + timedelta(seconds=60))


def test_an_outcome_before_its_acceptance_makes_the_delivery_and_the_acceptance_fills_it() -> None:
    relay, other = Relay(spool=7), Relay(spool=8)
    accepted = relay.accepted(subject="Late")
    ingest(other.batch(other.became(accepted, EventKind.DELIVERED, AT + timedelta(seconds=2))))
    early = delivery(accepted)
    assert (early.state, early.subject, early.mailbox) == ("delivered", "", "ann@b.example")
    ingest(relay.batch(accepted))
    row = delivery(accepted)
    assert (row.state, row.subject, row.mailbox) == ("delivered", "Late", "ann@b.example")


@pytest.mark.parametrize("together", [True, False])
def test_holders_come_and_go(together: bool) -> None:
    relay = Relay()
    accepted = relay.accepted()
    events = [
        relay.became(accepted, EventKind.HELD, AT + timedelta(seconds=1), hold="pause", attempt=0),
        relay.became(accepted, EventKind.HELD, AT + timedelta(seconds=2), hold="block", attempt=0),
        relay.became(accepted, EventKind.RELEASED, AT + timedelta(seconds=3), hold="pause", attempt=0),
    ]
    ingest(relay.batch(accepted))
    for part in [events] if together else [[event] for event in events]:
        ingest(relay.batch(*part))
    row = delivery(accepted)
    assert (row.state, row.holders) == (DeliveryState.HELD, ("block",))
    ingest(relay.batch(relay.became(accepted, EventKind.RELEASED, AT + timedelta(seconds=4), hold="block", attempt=0)))
    row = delivery(accepted)
    assert (row.state, row.holders, row.updated_at) == (DeliveryState.QUEUED, (), AT + timedelta(seconds=4))


def test_a_quarantined_delivery_is_held_and_an_attempt_that_was_under_way_leaves_it_held() -> None:
    relay = Relay()
    accepted = relay.accepted()
    ingest(relay.batch(accepted, relay.became(accepted, EventKind.QUARANTINED, AT + timedelta(seconds=1))))
    assert delivery(accepted).holders == ("quarantine",)
    ingest(relay.batch(relay.became(accepted, EventKind.DEFERRED, AT + timedelta(seconds=2), reply="451 no")))
    assert delivery(accepted).state == DeliveryState.HELD


def test_a_report_that_comes_back_is_noted_and_changes_no_state() -> None:
    relay = Relay()
    accepted = relay.accepted()
    ingest(relay.batch(accepted, relay.became(accepted, EventKind.DELIVERED)))
    ingest(relay.batch(relay.became(accepted, EventKind.DSN_RECEIVED, AT + timedelta(hours=1), reason="failed")))
    assert (delivery(accepted).state, delivery(accepted).returned) == ("delivered", "failed")
    later = Rollup.objects.get(account="acct_a", dimension="", bucket_at=AT + timedelta(hours=1))
    assert later.returned == 1


def test_an_outcome_counts_when_it_happened_and_with_its_acceptance() -> None:
    relay = Relay()
    accepted = relay.accepted("ann@b.example", "bob@b.example", "eve@b.example")
    later = AT + timedelta(hours=2, minutes=3)
    at_site = {"site": "b.example", "source": "192.0.2.9", "latency_seconds": 7380.0}
    ingest(
        relay.batch(
            accepted,
            relay.became(accepted, EventKind.DEFERRED, AT + timedelta(seconds=5), **at_site),
            relay.became(accepted, EventKind.DELIVERED, later, **at_site),
            relay.became(accepted, EventKind.BOUNCED, later, place=1, **at_site),
            relay.became(accepted, EventKind.EXPIRED, later, place=2),
        )
    )
    bucket = AT + timedelta(hours=2)
    for account, dimension, key in [
        ("acct_a", "", ""),
        ("", "", ""),
        ("", "account", "acct_a"),
        ("acct_a", "server", "srv_a"),
        ("acct_a", "credential", "crd_a"),
        ("acct_a", "domain", "a.example"),
        ("", "domain", "a.example"),
    ]:
        first = Rollup.objects.get(account=account, dimension=dimension, key=key, bucket_at=AT)
        second = Rollup.objects.get(account=account, dimension=dimension, key=key, bucket_at=bucket)
        assert (first.messages, first.octets, first.accepted, first.deferred, first.delivered) == (1, 1000, 3, 1, 0)
        assert (first.of_delivered, first.of_bounced, first.of_expired) == (1, 1, 1)
        assert (second.accepted, second.delivered, second.bounced, second.expired, second.of_delivered) == (0, 1, 1, 1, 0)
    for account in ("acct_a", ""):
        site = Rollup.objects.get(account=account, dimension="site", key="b.example", bucket_at=bucket)
        source = Rollup.objects.get(account=account, dimension="source", key="192.0.2.9", bucket_at=bucket)
        assert (site.delivered, site.bounced, source.delivered) == (1, 1, 1)
    assert LatencyBin.objects.get(account="acct_a", dimension="", bucket_at=bucket).count == 1
    assert not Rollup.objects.filter(account="", dimension__in=["server", "credential"]).exists()


def test_what_no_table_holds_is_left_out_and_the_rest_is_kept() -> None:
    relay = Relay()
    good = relay.accepted()
    unfit = relay.event(EventKind.DELIVERED, message="msg_" + "x" * 100, delivery="dlv_1")
    assert ingest(relay.batch(unfit, good)) == 2
    assert EventRow.objects.count() == 1


@pytest.mark.row("J7")
def test_text_of_strangers_is_kept_as_text() -> None:
    relay = Relay()
    nasty = "<script>alert(1)</script>'; DROP TABLE mail_event; -- %s \\ \x7f \u202e 😀"
    accepted = relay.accepted(subject=nasty, tag=nasty, metadata=nasty, client=nasty)
    ingest(relay.batch(accepted, relay.became(accepted, EventKind.DEFERRED, reply="451 " + nasty, host=nasty, site=nasty)))
    message = MessageRow.objects.get(account="acct_a", id=accepted.message)
    assert (message.subject, message.tag, message.metadata) == (nasty, nasty, nasty)
    assert delivery(accepted).reply == "451 " + nasty


def test_an_answer_marks_its_command_done() -> None:
    Command.objects.create(id="cmd_1", account="acct_a", command="retry", selector={}, created_at=AT, expires_at=AT)
    relay = Relay()
    ingest(relay.batch(relay.event(EventKind.COMMANDED, command="cmd_1", changed=3)))
    ingest(
        relay.batch(relay.event(EventKind.COMMANDED, command="cmd_1", changed=2), relay.event(EventKind.COMMANDED, command="?"))
    )
    done = Command.objects.get(id="cmd_1")
    assert (done.answers, done.changed, done.answered_at) == (2, 5, AT)


def test_mail_to_our_own_mailboxes_is_kept_and_counted_for_nobody() -> None:
    relay = Relay()
    ingest(
        relay.batch(relay.event(EventKind.INBOUND_OTHER, account="", server="", reason="abuse", recipient="abuse@p.example"))
    )
    assert b"abuse@p.example" in bytes(EventRow.objects.get().data)
    assert not Rollup.objects.exists()


def in_threads(*works: Callable[[], object]) -> list[BaseException]:
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_spools_in_parallel_lose_and_double_nothing() -> None:
    relays = [Relay(spool=spool) for spool in range(1, 5)]

    def ship(relay: Relay) -> Callable[[], object]:
        batches = []
        for _ in range(10):
            accepted = [relay.accepted(site="") for _ in range(10)]
            batches.append(
                relay.batch(*accepted, *(relay.became(one, EventKind.DELIVERED, site="s.example") for one in accepted))
            )

        def work() -> None:
            for batch in batches:
                ingest(batch)
                ingest(batch)

        return work

    assert in_threads(*(ship(relay) for relay in relays)) == []
    assert (total().messages, total().delivered, total("").delivered, total("", "site", "s.example").delivered) == (
        400,
        400,
        400,
        400,
    )
    assert EventRow.objects.count() == 800
    assert LatencyBin.objects.get(account="acct_a", dimension="").count == 400


def test_the_same_batch_at_two_connections_at_once_is_counted_once() -> None:
    relay = Relay()
    batches = [relay.batch(*(relay.accepted() for _ in range(20))) for _ in range(5)]

    def ship() -> None:
        for batch in batches:
            ingest(batch)

    assert in_threads(ship, ship, ship) == []
    assert (EventRow.objects.count(), total().messages, mark_of(7)) == (100, 100, 100)


def test_a_time_range_of_the_log_is_a_range_of_its_key() -> None:
    relay = Relay()
    ingest(relay.batch(relay.accepted(), relay.accepted("x@y.example", account="acct_b")))
    hour = timedelta(hours=1)
    assert DeliveryRow.objects.between("acct_a", AT, AT + hour).count() == 1
    assert DeliveryRow.objects.between("acct_a", AT - hour, AT).count() == 0
    assert MessageRow.objects.between("acct_b", AT, AT + hour).count() == 1
    assert to_micros(AT) == int(AT.timestamp()) * 1_000_000
