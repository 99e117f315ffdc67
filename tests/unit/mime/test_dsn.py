import email
import email.policy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.body import scan_body
from postbud.mime.dsn import MAX_RETURNED_OCTETS, Action, DsnRecipient, build_dsn
from postbud.mime.header import HeaderSection
from postbud.mime.report import ReportKind, parse_dsn
from postbud.model.content import Content

AT = datetime(2026, 11, 24, 21, 7, 17, tzinfo=UTC)
ORIGINAL = b"From: anna@acme.example\r\nSubject: Hello\r\nMessage-ID: <m1@acme.example>\r\n"
FAILED = DsnRecipient(
    "b@b.example", Action.FAILED, "5.1.1", "rfc822;bob@c.example", "mx.b.example", "550 5.1.1 no such user", AT, None
)


def build(
    *recipients: DsnRecipient,
    body: bytes | None = None,
    full: bool = False,
    smtputf8: bool = False,
    header: bytes = ORIGINAL,
    envid: str | None = None,
    subject: str = "",
) -> Content:
    return build_dsn(
        reporting_mta="relay.example",
        sender="postmaster@relay.example",
        to="anna@acme.example",
        recipients=recipients or (FAILED,),
        message_id="d1@relay.example",
        at=AT,
        original_header=header,
        original_body=body,
        full=full,
        arrived_at=AT,
        envid=envid,
        subject=subject,
        smtputf8=smtputf8,
    )


def parts(content: Content) -> list[email.message.Message]:
    assert isinstance(content.body, bytes)
    whole = email.message_from_bytes(content.header + b"\r\n" + content.body)
    payload = whole.get_payload()
    assert isinstance(payload, list)
    return payload


def body_of(content: Content) -> bytes:
    assert isinstance(content.body, bytes)
    return content.body


def machine(content: Content) -> bytes:
    assert isinstance(content.body, bytes)
    start = content.body.index(b"delivery-status\r\n")
    return content.body[start : content.body.index(b"\r\n--", start)]


def test_a_dsn_is_a_report_of_three_parts_that_says_what_happened() -> None:
    content = build(envid="E1", subject="Hello")
    section = HeaderSection.parse(content.header)
    assert section.value(b"to") == b"<anna@acme.example>"
    assert section.value(b"from") == b"Mail Delivery System <postmaster@relay.example>"
    assert section.value(b"auto-submitted") == b"auto-replied"
    assert section.value(b"message-id") == b"<d1@relay.example>"
    assert (section.value(b"content-type") or b"").startswith(b"multipart/report; report-type=delivery-status;")
    assert [part.get_content_type() for part in parts(content)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert machine(content) == (
        b"delivery-status\r\n\r\nOriginal-Envelope-Id: E1\r\nReporting-MTA: dns; relay.example\r\n"
        b"Arrival-Date: Tue, 24 Nov 2026 21:07:17 +0000\r\n\r\n"
        b"Original-Recipient: rfc822; bob@c.example\r\nFinal-Recipient: rfc822; b@b.example\r\n"
        b"Action: failed\r\nStatus: 5.1.1\r\n"
        b"Remote-MTA: dns; mx.b.example\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
        b"Last-Attempt-Date: Tue, 24 Nov 2026 21:07:17 +0000\r\n"
    )
    assert content.facts == scan_body(body_of(content))
    assert not content.facts.eight_bit


def test_a_person_reads_what_happened_and_why() -> None:
    text = str(
        parts(
            build(
                FAILED,
                DsnRecipient("c@c.example", Action.DELAYED, "4.4.1", diagnostic="no answer", will_retry_until=AT),
                subject="Hello",
            )
        )[0].get_payload()
    )
    assert "could not be delivered" in text
    assert "about your message 'Hello'" in text
    assert "  b@b.example\r\n    mx.b.example said: 550 5.1.1 no such user" in text
    assert "no need to send again" in text
    assert "  c@c.example\r\n    Reason: no answer\r\n    We try until Tue, 24 Nov 2026 21:07:17 +0000." in text


@pytest.mark.parametrize(
    ("action", "subject"),
    [
        (Action.DELAYED, b"delayed"),
        (Action.RELAYED, b"passed on"),
        (Action.DELIVERED, b"was delivered"),
        (Action.FAILED, b"not be delivered"),
    ],
)
def test_the_subject_tells_the_worst(action: Action, subject: bytes) -> None:
    content = build(DsnRecipient("c@c.example", Action.DELIVERED, "2.0.0"), DsnRecipient("b@b.example", action, "2.0.0"))
    assert subject in content.header


def test_our_own_reader_reads_it_back() -> None:
    content = build(envid="E 1")
    assert isinstance(content.body, bytes)
    report = parse_dsn(content.header, content.body, own_hostname="Relay.Example")
    assert report is not None
    assert (report.kind, report.ours, report.envid, report.original_message_id) == (
        ReportKind.DSN,
        True,
        "E 1",
        "m1@acme.example",
    )
    (recipient,) = report.recipients
    assert (recipient.final, recipient.original, recipient.action, recipient.status, recipient.remote_mta) == (
        "b@b.example",
        "bob@c.example",
        "failed",
        "5.1.1",
        "mx.b.example",
    )


def test_the_whole_original_comes_back_when_asked_and_small() -> None:
    small, large = b"body\r\n", b"x\r\n" * MAX_RETURNED_OCTETS
    assert [p.get_content_type() for p in parts(build(body=small, full=True))][2] == "message/rfc822"
    assert ORIGINAL + b"\r\nbody\r\n\r\n--" in body_of(build(body=small, full=True))
    for content in (build(body=large, full=True), build(body=small), build(full=True)):
        assert [p.get_content_type() for p in parts(content)][2] == "text/rfc822-headers"


def test_internationalised_addresses_are_utf8_for_who_can_read_them_and_ascii_for_others() -> None:
    recipient = DsnRecipient("jü+x@b.example", Action.FAILED, "5.1.1", "utf-8;jø@c.example", None, "ukendt bruger æ")
    wide = build(recipient, smtputf8=True)
    assert "Final-Recipient: utf-8; jü+x@b.example\r\n".encode() in machine(wide)
    assert "Diagnostic-Code: x-postbud; ukendt bruger æ\r\n".encode() in machine(wide)
    assert b"Content-Transfer-Encoding: 8bit\r\n" in wide.header
    types = [line for line in body_of(wide).split(b"\r\n") if line.startswith(b"Content-Type")]
    assert types[1:] == [b"Content-Type: message/global-delivery-status", b"Content-Type: message/global-headers"]
    narrow = machine(build(recipient))
    assert rb"Final-Recipient: utf-8; j\x{FC}\x{2B}x@b.example" in narrow
    assert rb"Original-Recipient: utf-8; j\x{F8}@c.example" in narrow
    assert rb"ukendt bruger \xe6" in narrow
    whole = build(recipient, smtputf8=True, body=b"x\r\n", full=True)
    assert b"Content-Type: message/global\r\n" in body_of(whole)


def test_what_is_not_known_is_not_said() -> None:
    content = build_dsn(
        reporting_mta="relay.example",
        sender="postmaster@relay.example",
        to="anna@acme.example",
        recipients=[DsnRecipient("b@b.example", Action.FAILED, "5.0.0")],
        message_id="d1@relay.example",
        at=AT,
        original_header=ORIGINAL,
    )
    assert machine(content) == (
        b"delivery-status\r\n\r\nReporting-MTA: dns; relay.example\r\n\r\n"
        b"Final-Recipient: rfc822; b@b.example\r\nAction: failed\r\nStatus: 5.0.0\r\n"
    )


def test_an_original_recipient_without_a_type_is_an_rfc822_one() -> None:
    assert b"Original-Recipient: rfc822; x@y.example" in machine(
        build(DsnRecipient("b@b.example", Action.FAILED, "5.0.0", "x@y.example"))
    )


@given(st.text(max_size=700), st.text(max_size=400), st.booleans(), st.text(max_size=120))
def test_whatever_a_peer_says_the_dsn_keeps_its_shape(said: str, subject: str, smtputf8: bool, envid: str) -> None:
    recipient = DsnRecipient("b@b.example", Action.FAILED, "5.0.0", None, said[:40] or None, said)
    content = build(recipient, smtputf8=smtputf8, subject=subject, envid=envid)
    assert isinstance(content.body, bytes)
    HeaderSection.parse(content.header)
    assert not content.facts.long_line
    assert content.body.count(b"\n") == content.body.count(b"\r\n") == content.body.count(b"\r")
    report = parse_dsn(content.header, content.body)
    assert report is not None
    assert [found.final for found in report.recipients] == ["b@b.example"]
    assert content.body.count(b"--=_") == 4
