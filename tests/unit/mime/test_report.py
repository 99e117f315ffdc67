import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared import shared_data

from postbud.mime.report import MAX_RECIPIENTS, MAX_STATUS_OCTETS, DsnReport, ReportedRecipient, ReportKind, parse_dsn

HEADER = b"From: MAILER-DAEMON@mx.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n"


def dsn(
    status: bytes,
    text: bytes = b"Sorry.",
    returned: bytes = b"Message-ID: <m1@acme.example>\r\n",
    kind: bytes = b"message/delivery-status",
) -> bytes:
    return (
        b"--b\r\nContent-Type: text/plain\r\n\r\n" + text + b"\r\n--b\r\nContent-Type: " + kind + b"\r\n\r\n" + status
        + b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + returned + b"\r\nbody\r\n--b--\r\n"
    )  # fmt: skip


def read(status: bytes, **more: bytes) -> DsnReport:
    report = parse_dsn(HEADER, dsn(status, **more))
    assert report is not None
    return report


STATUS = (
    b"Reporting-MTA: dns; mx.example\r\nOriginal-Envelope-Id: E1\r\n\r\n"
    b"Original-Recipient: rfc822;bob@c.example\r\nFinal-Recipient: RFC822; <b@b.example>\r\nAction: Failed (really)\r\n"
    b"Status: 5.1.1 (no such user)\r\nRemote-MTA: dns; [192.0.2.1]\r\n"
    b"Diagnostic-Code: smtp; 550 5.1.1\r\n  no such\r\n\tuser\r\n"
)


def test_the_fields_of_message_and_recipients_are_read() -> None:
    report = read(STATUS + b"\r\nFinal-Recipient: rfc822; c@c.example\r\nAction: delayed\r\nStatus: 4.4.1\r\n")
    assert report == DsnReport(
        ReportKind.DSN,
        (
            ReportedRecipient("b@b.example", "bob@c.example", "failed", "5.1.1", "smtp; 550 5.1.1 no such user", "[192.0.2.1]"),
            ReportedRecipient("c@c.example", "", "delayed", "4.4.1", "", ""),
        ),
        reporting_mta="mx.example",
        envid="E1",
        original_message_id="m1@acme.example",
        text="Sorry.",
    )


@pytest.mark.parametrize(
    "status",
    [
        b"Final-Recipient: rfc822; b@b.example\r\nAction: failed\r\n",  # no fields of the message
        b"\r\n\r\nReporting-MTA: dns; x\r\nFinal-Recipient: rfc822; b@b.example\r\nAction: failed\r\n",  # no empty line between
        b"Reporting-MTA: dns; x\r\n \r\n\r\nFinal-Recipient: b@b.example\r\nAction: failed",
        b"X: y\r\n\r\nFinal-Recipient : rfc822;b@b.example\r\nAction: failed\r\nStatus: none\r\n",
    ],
)
def test_systems_that_write_it_their_own_way_are_understood(status: bytes) -> None:
    (recipient,) = read(status).recipients
    assert (recipient.final, recipient.action, recipient.status) == ("b@b.example", "failed", "")


def test_a_status_part_may_be_internationalised_or_encoded() -> None:
    body = dsn("Final-Recipient: utf-8; jü@b.example\r\nAction: failed\r\n".encode(), kind=b"message/global-delivery-status")
    report = parse_dsn(HEADER, body)
    assert report is not None
    assert report.recipients[0].final == "jü@b.example"
    encoded = dsn(
        b"Final-Recipient: rfc822; b=40b.example=\r\n\r\nAction: failed\r\n",
        kind=b"message/delivery-status\r\nContent-Transfer-Encoding: quoted-printable",
    )
    report = parse_dsn(HEADER, encoded)
    assert report is not None
    assert report.recipients[0].final == "b@b.example"


@pytest.mark.row("H5")
def test_html_and_controls_in_a_diagnostic_are_one_safe_bounded_line() -> None:
    (recipient,) = read(
        b"Final-Recipient: rfc822; <script>@b\r\nDiagnostic-Code: smtp; \x1b[2J<img onerror=x>\x00" + b"a" * 5000
    ).recipients
    assert recipient.diagnostic.startswith("smtp; \\x1b[2J<img onerror=x>\\x00aaa")
    assert recipient.diagnostic.isprintable()
    assert len(recipient.diagnostic) < 600


@pytest.mark.row("H5")
def test_a_hundred_thousand_recipients_are_cut_and_flagged() -> None:
    started = time.perf_counter()
    block = b"Final-Recipient: rfc822; b@b.example\r\nAction: failed\r\n\r\n"
    report = read(b"Reporting-MTA: dns; x\r\n\r\n" + block * 100_000)
    assert (len(report.recipients), report.truncated) == (MAX_RECIPIENTS, True)
    long = read(b"Final-Recipient: rfc822; b@b.example\r\nX: " + b"y" * MAX_STATUS_OCTETS)
    assert (len(long.recipients), long.truncated) == (1, True)
    assert time.perf_counter() - started < 5


@pytest.mark.row("H5")
def test_deep_nesting_is_cut_and_flagged() -> None:
    started = time.perf_counter()
    deep = b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(10_000))
    assert parse_dsn(b"Content-Type: multipart/mixed; boundary=0\r\n", deep) is None
    report = parse_dsn(b"Subject: Undelivered\r\nContent-Type: multipart/mixed; boundary=0\r\n", deep)
    assert report is not None
    assert (report.kind, report.truncated) == (ReportKind.TEXT_BOUNCE, True)
    assert time.perf_counter() - started < 5


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    "pattern", [b"\r\n", b" \r\n", b"a:", b"a: b\r\n c", b"<", b"-", b"\r\n\r\n ", b"5.1.1.", b"original message "]
)
def test_hostile_parts_cost_little(pattern: bytes) -> None:
    started = time.perf_counter()
    flood = pattern * (1_000_000 // len(pattern))
    for kind in (b"message/delivery-status", b"text/html"):
        parse_dsn(HEADER, dsn(flood, text=flood, returned=flood, kind=kind))
    assert time.perf_counter() - started < 10


@pytest.mark.row("H4")
def test_our_own_dsn_that_comes_back_is_known() -> None:
    report = parse_dsn(HEADER, dsn(STATUS), own_hostname="MX.example")
    assert report is not None
    assert report.ours
    assert not read(STATUS).ours


@pytest.mark.row("H3")
@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (b"From: b@b.example\r\nSubject: Re: hello\r\n", None),
        (b"", None),
        (b"Auto-Submitted: no\r\n", None),
        (b"Auto-Submitted: auto-replied\r\n", ReportKind.AUTO_REPLY),
        (b"Auto-Submitted: auto-generated; x=y\r\n", ReportKind.AUTO_REPLY),
        (b"Precedence: auto_reply\r\n", ReportKind.AUTO_REPLY),
        (b"X-Autoreply: yes\r\n", ReportKind.AUTO_REPLY),
        (b"X-Autorespond: yes\r\n", ReportKind.AUTO_REPLY),
        (b"Subject: Automatic reply: hello\r\n", ReportKind.AUTO_REPLY),
        (b"From: postmaster@b.example\r\nSubject: Out of office\r\n", ReportKind.AUTO_REPLY),
        (b"Subject: =?utf-8?q?Autosvar:_hej?=\r\n", ReportKind.AUTO_REPLY),
        (b"From: MAILER-DAEMON\r\n", ReportKind.TEXT_BOUNCE),
        (b"From: Mail Delivery Subsystem <x@y.example>\r\n", ReportKind.TEXT_BOUNCE),
        (b"X-Failed-Recipients: b@b.example\r\nSubject: Automatic reply\r\n", ReportKind.TEXT_BOUNCE),
        (b"Subject: failure notice\r\nAuto-Submitted: auto-replied\r\n", ReportKind.TEXT_BOUNCE),
        (b"Content-Type: multipart/report; report-type=delivery-status\r\n", ReportKind.TEXT_BOUNCE),
        (b"Content-Type: multipart/report; report-type=disposition-notification\r\n", ReportKind.DISPOSITION),
        (b"Content-Type: multipart/report; report-type=Feedback-Report\r\n", ReportKind.FEEDBACK_REPORT),
        (b"Content-Type: message/feedback-report\r\n", ReportKind.FEEDBACK_REPORT),
        (b"Content-Type: message/disposition-notification\r\n", ReportKind.DISPOSITION),
    ],
)
def test_what_is_no_dsn_is_told_apart(header: bytes, kind: ReportKind | None) -> None:
    report = parse_dsn(header, b"Hi\r\n")
    assert (report.kind if report else None) is kind


@pytest.mark.row("H3")
def test_a_dsn_without_recipients_is_a_bounce_for_people() -> None:
    report = read(b"Reporting-MTA: dns; mx.example\r\n")
    assert (report.kind, report.recipients, report.reporting_mta) == (ReportKind.TEXT_BOUNCE, (), "mx.example")


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nbr\xf8d", "brød"),
        (b"Content-Type: text/plain; charset=x-none\r\n\r\nbr\xc3\xb8d", "brød"),
        (b"Content-Type: text/html\r\n\r\n<p>No <b>such</b> user</p>", "No such user"),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nTm8gc3VjaCB1c2Vy", "No such user"),
        (b"\r\nNo such user\r\n\r\n------ This is a copy of your message\r\nuser unknown\r\n", "No such user"),
        (b"\r\nNo such user\r\nReturn-Path: <a@b.example>\r\n", "No such user"),
        (b"Content-Type: text/rfc822-headers\r\n\r\nSubject: x", ""),
        (b"Content-Type: image/png\r\n\r\nx", ""),
    ],
)
def test_what_people_were_told_ends_where_the_original_begins(part: bytes, text: str) -> None:
    report = parse_dsn(HEADER, b"--b\r\n" + part + b"\r\n--b--\r\n")
    assert report is not None
    assert report.text == text


PIECES = st.sampled_from(
    [
        b"--b",
        b"--b--",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Type: message/delivery-status",
        b"Final-Recipient: rfc822; x",
        b"Action: failed",
        b"Content-Type: text/html",
        b"Status: 5.1.1",
        b"Content-Transfer-Encoding: base64",
        b" ",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=30), st.booleans())
def test_any_octets_are_read_without_an_error(pieces: list[bytes], known: bool) -> None:
    report = parse_dsn(HEADER if known else b"".join(pieces[:5]), b"".join(pieces))
    if report is not None:
        assert report.text.isprintable()
        assert all(
            value.isprintable() for r in report.recipients for value in (r.final, r.original, r.action, r.status, r.diagnostic)
        )


def test_real_bounces_are_reports_within_bounded_time() -> None:
    """Bounces that others collected: nothing raises, nothing is slow, and next to none is taken for ordinary mail."""
    ordinary = total = 0
    for path in sorted(shared_data("bounces").glob("*.eml")):
        octets = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        header, _, body = octets.partition(b"\r\n\r\n")
        started = time.perf_counter()
        ordinary += parse_dsn(header + b"\r\n", body) is None
        assert time.perf_counter() - started < 1
        total += 1
    assert ordinary / total < 0.05
