"""Our own reports: what of the original they return, and which status they name."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postbud.delivery.notify import Notifier, NotifySettings
from postbud.delivery.record import Change
from postbud.link.replica import Directory, Replica
from postbud.mime.body import scan_body
from postbud.mime.dsn import MAX_RETURNED_OCTETS
from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message, State
from postbud.model.event import Event, EventKind
from postbud.model.ids import AccountId, CredentialId, DeliveryId, IdSource, MessageId, ServerId

AT = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = b"From: <a@acme.example>\r\nMessage-ID: <x@acme.example>\r\n"


def notifier() -> Notifier:
    clock = AT.timestamp
    ids = IdSource(7, lambda: int(clock() * 1000), os.urandom)
    return Notifier(NotifySettings("relay.example", 3600), Replica(Directory.of([])), ids, clock)


def message(*, ret_full: bool | None = True) -> Message:
    return Message(
        id=MessageId("msg_x"), account=AccountId("acct_a"), server=ServerId("srv_a"), credential=CredentialId("crd_a"),
        reverse_path="a@acme.example", signing_domain=None, from_domain="acme.example", received_at=AT, size_octets=1,
        ret_full=ret_full, message_id="<x@acme.example>",
    )  # fmt: skip


def change(notice: str = "failed", said: str = "550 5.1.1 no", state: State = State.BOUNCED) -> Change:
    at = AT.timestamp()
    delivery = Delivery(
        id=DeliveryId("dlv_x"), message_id=MessageId("msg_x"), mailbox="b@dest.example", domain="dest.example", due_at=at,
        expires_at=at, created_at=at, state=state, last_reply=said,
    )  # fmt: skip
    return Change(delivery, Event(id="evt_x", kind=EventKind.BOUNCED, at=AT), notice)


def filed(folder: Path, octets: int) -> Content:
    """Give a content whose body lies in a file."""
    body = b"line\r\n" * (octets // 6)
    path = folder / "body"
    path.write_bytes(body)
    return Content(HEADER, path, scan_body(body))


def reported(content: Content | None, one: Change, about: Message) -> bytes:
    made = notifier()
    ready = asyncio.run(made.returnable(about, content, [one]))
    (report,), _ = made.reports(about, ready, [one])
    assert isinstance(report.content.body, bytes)
    return report.content.body


def test_a_body_in_a_file_comes_back_whole_when_it_was_asked_for_and_is_not_large(tmp_path: Path) -> None:
    content = filed(tmp_path, 60_000)
    body = reported(content, change(), message())
    assert b"Content-Type: message/rfc822\r\n" in body
    assert body.count(b"line\r\n") == 10_000


def test_a_body_in_a_file_is_not_read_when_it_is_large_or_was_not_asked_for(tmp_path: Path) -> None:
    small = filed(tmp_path, 600)
    large = Content(HEADER, tmp_path / "never-read", scan_body(b"x\r\n" * (MAX_RETURNED_OCTETS // 3 + 1)))
    for content, one, about in (
        (large, change(), message()),
        (small, change(), message(ret_full=False)),
        (small, change(), message(ret_full=None)),
        (small, change("delayed", "450 4.2.0 later", State.QUEUED), message()),
    ):
        assert asyncio.run(notifier().returnable(about, content, [one])) is content
        body = reported(content, one, about)
        assert b"Content-Type: text/rfc822-headers\r\n" in body
        assert b"Message-ID: <x@acme.example>" in body
        assert b"line\r\n" not in body


def test_a_body_whose_file_is_gone_still_gets_its_header_section_back(tmp_path: Path) -> None:
    content = filed(tmp_path, 600)
    (tmp_path / "body").unlink()
    body = reported(content, change(), message())
    assert b"Content-Type: text/rfc822-headers\r\n\r\n" + HEADER in body


def test_a_report_about_a_content_that_is_gone_names_its_message_id() -> None:
    assert b"\r\nMessage-ID: <x@acme.example>\r\n" in reported(None, change(), message())


@pytest.mark.parametrize(
    ("said", "state", "notice", "status"),
    [
        ("550 5.1.1 no such user", State.BOUNCED, "failed", "5.1.1"),
        ("5.1.2 the domain does not exist", State.BOUNCED, "failed", "5.1.2"),
        ("5.1.10 null MX", State.BOUNCED, "failed", "5.1.10"),
        ("550 go away", State.BOUNCED, "failed", "5.0.0"),
        ("550 5.\u00b2.1 odd digits", State.BOUNCED, "failed", "5.0.0"),
        ("550 192.0.2.1 is listed", State.BOUNCED, "failed", "5.0.0"),
        ("550 2.7.1 says success and means failure", State.BOUNCED, "failed", "5.7.1"),
        ("450 4.2.0 later", State.EXPIRED, "failed", "4.4.7"),
        ("450 4.2.0 later", State.QUEUED, "delayed", "4.2.0"),
        ("later", State.QUEUED, "delayed", "4.0.0"),
        ("250 2.1.5 fine", State.DELIVERED, "relayed", "2.1.5"),
        ("250 fine", State.DELIVERED, "delivered", "2.0.0"),
    ],
)
def test_a_report_names_the_status_of_the_peer_or_our_own(said: str, state: State, notice: str, status: str) -> None:
    assert f"\r\nStatus: {status}\r\n".encode() in reported(None, change(notice, said, state), message())
