"""Reports to senders (RFC 3461, RFC 3464): when there is one, what it says, how it travels."""

import base64
import email
import email.message
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.system.conftest import Pair
from tests.system.directory import Settings, accounts_toml
from tests.system.harness import ROOT, Recorder, Relay, json_lines, running, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit

UNREACHABLE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def hop_with_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A next hop that offers DSN; gives its port and its log."""
    log, port = tmp_path_factory.mktemp("hop") / "log.jsonl", free_port()
    words = [sys.executable, str(ROOT / "tests/system/sink.py"), "--listen", f"127.0.0.1:{port}", "--log", str(log)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        yield port, log
        process.kill()


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory, hop_with_dsn: tuple[int, Path]) -> Iterator[Pair]:
    """A relay that tells of a delay after 2 s and gives up after 5 s; slow.example leads nowhere, dsn.example offers DSN."""
    settings = Settings(relay={"delay_notice_after_seconds": 2, "expire_after_seconds": 5})
    settings.routes = {"slow.example": UNREACHABLE, "dsn.example": f"127.0.0.1:{hop_with_dsn[0]}"}
    with running(tmp_path_factory.mktemp("dsn"), settings) as pair:
        yield pair


@pytest.fixture
def relay(reporting: Pair) -> Relay:
    return reporting[0]


@pytest.fixture
def sink(reporting: Pair) -> Recorder:
    return reporting[1]


class Case:
    """One message and what its sender hears."""

    def __init__(
        self, relay: Relay, sink: Recorder, *recipients: str, mail: str = "", rcpt: str = "", octets: int = 1024
    ) -> None:
        self.relay, self.sink = relay, sink
        self.id = new_test_id()
        self.sender = f"from-{self.id}@acme.example"
        self.mailboxes = [each.replace("@", f"{self.id}@") for each in recipients]
        self.content = make_content(self.id, octets)
        self.message = queued_id(
            submit(
                relay.ports["cleartext"], self.content, self.mailboxes, mail_parameters=mail, rcpt_parameters=rcpt,
                sender=self.sender,
            )
        )  # fmt: skip

    def reports(self, count: int = 1) -> list[dict[str, str]]:
        return self.sink.wait_for(lambda record: record["recipients"] == [self.sender], count, 20)

    def none(self) -> None:
        """Nothing more may have come, and nothing may be under way."""
        self.relay.wait_final({self.message}, 20)
        time.sleep(1.0)
        assert not [record for record in self.sink.received() if self.sender in record["recipients"]]
        assert not [event for event in self.relay.events() if event.get("reason") == f"report for {self.message}"]

    def report(self) -> "Report":
        (record,) = self.reports()
        return Report(record)


class Report:
    """A DSN taken apart by the standard library, which is not ours."""

    def __init__(self, record: dict[str, str]) -> None:
        assert record["sender"] == ""
        self.octets = base64.b64decode(record["content"])
        self.message = email.message_from_bytes(self.octets)
        assert self.message.get_content_type() == "multipart/report"
        assert self.message.get_param("report-type") == "delivery-status"
        parts: Any = self.message.get_payload()
        assert len(parts) == 3
        self.text: email.message.Message = parts[0]
        self.status: Any = parts[1]
        self.returned: email.message.Message = parts[2]
        blocks = self.status.get_payload()
        self.about_message: email.message.Message = blocks[0]
        self.recipients: list[email.message.Message] = blocks[1:]


def unfolded(value: str) -> str:
    return " ".join(value.split())


def test_a_refused_recipient_is_told_to_the_reverse_path_with_the_header_only(relay: Relay, sink: Recorder) -> None:
    case = Case(relay, sink, "rcpt-550-@dest.example", "fine@dest.example")
    report = case.report()
    assert report.message["To"] == f"<{case.sender}>" or report.message["To"] == case.sender
    assert "postmaster@relay.example" in report.message["From"]
    assert report.message["Auto-Submitted"] == "auto-replied"
    (block,) = report.recipients
    assert block["Action"] == "failed"
    assert block["Status"] == "5.2.1"
    assert unfolded(block["Final-Recipient"]) == f"rfc822; {case.mailboxes[0]}"
    assert "550 5.2.1 As asked" in unfolded(block["Diagnostic-Code"])
    assert report.about_message["Reporting-MTA"] == "dns; relay.example"
    assert report.about_message["Original-Envelope-Id"] is None
    assert report.returned.get_content_type() == "text/rfc822-headers"
    assert case.id.encode() in report.octets
    assert b"lazy dog" not in report.octets
    kinds = [(event["kind"], event.get("recipient", "")) for event in relay.events_of(case.message)]
    assert ("bounced", case.mailboxes[0]) in kinds
    assert ("delivered", case.mailboxes[1]) in kinds
    accepted = [event for event in relay.events() if event.get("reason") == f"report for {case.message}"]
    assert [event["account"] for event in accepted] == ["acct_system"]


def test_the_report_is_signed_by_the_system_key(relay: Relay, sink: Recorder) -> None:
    report = Case(relay, sink, "rcpt-550-@dest.example").report()
    signatures = report.message.get_all("DKIM-Signature") or []
    assert len(signatures) == 1
    assert re.search(r"\bd=relay\.example\b", signatures[0])
    assert re.search(r"\bs=sys\b", signatures[0])


def test_without_a_system_account_the_report_goes_out_unsigned(relay: Relay, sink: Recorder) -> None:
    temporary = relay.folder / "accounts.toml.new"
    temporary.write_text(accounts_toml().partition('[[account]]\nid = "acct_system"')[0])
    temporary.replace(relay.folder / "accounts.toml")
    try:
        time.sleep(1.5)
        report = Case(relay, sink, "rcpt-550-@dest.example").report()
        assert report.message["DKIM-Signature"] is None
    finally:
        relay.write_accounts()
        time.sleep(1.0)


def test_who_asks_for_full_content_gets_it_back(relay: Relay, sink: Recorder) -> None:
    case = Case(relay, sink, "rcpt-550-@dest.example", mail=" RET=FULL")
    report = case.report()
    assert report.returned.get_content_type() == "message/rfc822"
    assert b"lazy dog" in report.octets
    assert Case(relay, sink, "rcpt-550-@dest.example", mail=" RET=HDRS").report().octets.count(b"lazy dog") == 0


@pytest.mark.parametrize(("octets", "kind"), [(200_000, "message/rfc822"), (300_000, "text/rfc822-headers")])
def test_full_content_comes_back_up_to_256_kib_and_beyond_it_the_header_only(
    relay: Relay, sink: Recorder, octets: int, kind: str
) -> None:
    case = Case(relay, sink, "rcpt-550-@dest.example", mail=" RET=FULL", octets=octets)
    report = case.report()
    assert report.returned.get_content_type() == kind
    assert (len(report.octets) > octets) is (kind == "message/rfc822")
    assert case.id.encode() in report.octets


def test_envelope_id_and_original_recipient_come_back_decoded(relay: Relay, sink: Recorder) -> None:
    asked = " ORCPT=rfc822;first+2Bname@dest.example NOTIFY=FAILURE"
    case = Case(relay, sink, "dot-554-@dest.example", mail=" ENVID=QQ+2B17", rcpt=asked)
    report = case.report()
    assert report.about_message["Original-Envelope-Id"] == "QQ+17"
    assert unfolded(report.recipients[0]["Original-Recipient"]).replace("; ", ";") == "rfc822;first+name@dest.example"


def test_two_refused_recipients_stand_in_one_report(relay: Relay, sink: Recorder) -> None:
    case = Case(relay, sink, "rcpt-550-a@dest.example", "rcpt-551-b@dest.example")
    told = {unfolded(block["Final-Recipient"]) for block in case.report().recipients}
    assert told == {f"rfc822; {each}" for each in case.mailboxes}


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY"])
def test_who_did_not_ask_about_failure_hears_nothing_of_it(relay: Relay, sink: Recorder, notify: str) -> None:
    case = Case(relay, sink, "rcpt-550-@dest.example", rcpt=f" NOTIFY={notify}")
    case.none()
    assert [event["kind"] for event in relay.events_of(case.message)] == ["accepted", "bounced"]


def test_success_at_a_hop_without_dsn_is_told_as_relayed(relay: Relay, sink: Recorder) -> None:
    case = Case(relay, sink, "fine@dest.example", rcpt=" NOTIFY=SUCCESS,FAILURE")
    (block,) = case.report().recipients
    assert (block["Action"], block["Status"]) == ("relayed", "2.0.0")
    Case(relay, sink, "fine@dest.example").none()


@pytest.mark.parametrize("ret", ["FULL", "HDRS"])
def test_a_hop_with_dsn_hears_what_the_sender_asked_and_reports_itself(
    relay: Relay, sink: Recorder, hop_with_dsn: tuple[int, Path], ret: str
) -> None:
    case = Case(relay, sink, "fine@dsn.example", mail=f" RET={ret} ENVID=QQ+2B17", rcpt=" NOTIFY=SUCCESS,DELAY")
    relay.wait_final({case.message})
    (record,) = [found for found in json_lines([hop_with_dsn[1]]) if case.mailboxes[0] in found["recipients"]]
    assert "ENVID=QQ+2B17" in record["mail"]
    assert f"RET={ret}" in record["mail"]
    case.none()


def test_a_delay_is_told_once_to_who_asked_and_the_end_of_it_too(relay: Relay, sink: Recorder) -> None:
    case = Case(relay, sink, "a@slow.example", rcpt=" NOTIFY=DELAY,FAILURE")
    silent = Case(relay, sink, "a@slow.example", rcpt=" NOTIFY=NEVER")
    relay.wait_final({case.message}, 30)
    reports = [Report(record) for record in case.reports(2)]
    assert [report.recipients[0]["Action"] for report in reports] == ["delayed", "failed"]
    delayed, failed = (report.recipients[0] for report in reports)
    assert delayed["Status"].startswith("4.")
    assert delayed["Will-Retry-Until"]
    assert failed["Status"] == "4.4.7"
    assert failed["Will-Retry-Until"] is None
    kinds = [event["kind"] for event in relay.events_of(case.message)]
    assert kinds[-1] == "expired"
    assert kinds.count("deferred") >= 2
    silent.none()


def test_nobody_hears_of_a_failure_of_mail_with_the_null_reverse_path(relay: Relay, sink: Recorder) -> None:
    test_id = new_test_id()
    recipients = [f"rcpt-550-{test_id}@dest.example"]
    message = queued_id(submit(relay.ports["cleartext"], make_content(test_id), recipients, username="daemon-1", sender=""))
    relay.wait_final({message}, 20)
    time.sleep(1.0)
    assert not [event for event in relay.events() if event.get("reason") == f"report for {message}"]


def test_a_report_that_cannot_be_delivered_is_not_reported_again(relay: Relay, sink: Recorder) -> None:
    test_id = new_test_id()
    sender = f"rcpt-550-{test_id}@acme.example"
    first = queued_id(
        submit(relay.ports["cleartext"], make_content(test_id), [f"rcpt-550-to{test_id}@dest.example"], sender=sender)
    )
    reason = f"report for {first}"

    def report() -> str:
        return next((event["message"] for event in relay.events() if event.get("reason") == reason), "")

    dsn = wait_until(report, "a report is queued", 15)
    relay.wait_final({dsn}, 15)
    time.sleep(1.0)
    assert [event["kind"] for event in relay.events_of(dsn)] == ["accepted", "bounced"]
    assert not [event for event in relay.events() if event.get("reason") == f"report for {dsn}"]
