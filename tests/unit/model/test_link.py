"""The link's records: what one end writes, the other reads, be it older or newer."""

from datetime import UTC, datetime

import msgspec
import pytest

from postbud.model.account import Kind, Status
from postbud.model.event import Event, EventKind
from postbud.model.lease import StoredLease, lease_name
from postbud.model.link import (
    AccountRecord,
    Change,
    CommandKind,
    CommandRecord,
    CredentialRecord,
    DirectoryPage,
    DomainRecord,
    EventBatch,
    Gone,
    Lease,
    NumberedEvent,
    PolicyRecord,
    Record,
    SealedKey,
    SecretRecord,
    Selector,
    ServerRecord,
    VerdictRecord,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RECORDS = [
    AccountRecord("acct_1", "Acme", Status.BLOCKED, "case_1", 100, 10_000),
    ServerRecord("srv_1", "acct_1", Kind.SANDBOX, Status.PAUSED, "pool", 10, keep_content=True),
    CredentialRecord("crd_1", "srv_1", "printer-1", "hmac$1$00$11", "hmac$1$22$33", NOW, ("192.0.2.0/24",), api=True),
    DomainRecord("acct_1/acme.example", "acct_1", "acme.example", (SealedKey("s1", b"\x01\xff"), SealedKey("s2", None))),
    SecretRecord("pepper/1", bytes(29)),
    PolicyRecord("c7-from", "shadow"),
    CommandRecord("cmd_1", CommandKind.CANCEL, Selector(account="acct_1", mailbox_hash=2**64 - 1), NOW),
    VerdictRecord("fingerprint", "good"),
    Gone("server", "srv_9"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    page = DirectoryPage(seq=7, changes=(Change(7, record),), more=True, monitor_ok_at=NOW)
    assert msgspec.json.decode(msgspec.json.encode(page), type=DirectoryPage) == page


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_field_that_a_newer_end_adds_is_passed_over(record: Record) -> None:
    told = msgspec.json.decode(msgspec.json.encode(record)) | {"of_next_year": [1, {"x": None}]}
    assert msgspec.convert(told, Record) == record


def test_a_record_without_its_last_fields_has_their_defaults() -> None:
    told = b'{"kind":"server","id":"srv_1","account":"acct_1","purpose":"transactional"}'
    assert msgspec.json.decode(told, type=Record) == ServerRecord("srv_1", "acct_1", Kind.TRANSACTIONAL)


@pytest.mark.parametrize(
    "told",
    [
        b'{"kind":"server","id":"srv_1"}',
        b'{"kind":"wish","id":"x"}',
        b'{"kind":"server","id":"srv_1","account":"acct_1","purpose":"gossip"}',
        b'{"kind":"command","id":"c","command":"burn","selector":{},"expires_at":"2026-11-25T12:00:00Z"}',
    ],
)
def test_what_is_no_record_is_refused(told: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(told, type=Record)


def test_an_event_that_ships_is_the_spools_event_with_a_number_in_front() -> None:
    event = Event(id="evt_1", at=NOW, kind=EventKind.ACCEPTED, account="acct_1", message="msg_1")
    body = b'{"node":"n","spool":3,"events":[{"seq":5,%b]}' % msgspec.json.encode(event)[1:]
    batch = msgspec.json.decode(body, type=EventBatch)
    assert batch.events == (NumberedEvent(seq=5, **{name: getattr(event, name) for name in Event.__struct_fields__}),)


def test_leases_have_a_name_for_each_account_and_month() -> None:
    assert lease_name("acct_1", "2026-11") != lease_name("acct_1", "2026-12") != lease_name("acct_11", "2026-1")
    assert StoredLease("acct_1", "2026-11", 0, -3, 1).left < 0
    assert msgspec.json.decode(msgspec.json.encode(Lease(5, "2026-11", NOW)), type=Lease).allowance is None
