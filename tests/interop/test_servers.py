"""Real servers receive, and others' verifiers take our signatures."""

import asyncio
import base64
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives import serialization

from tests.interop import postfix as postfix_module
from tests.ports import free_port
from tests.system.directory import ED25519_SELECTOR, RSA_SELECTOR, Settings, ed25519_key, rsa_key
from tests.system.harness import Recorder, Relay, running, wait_until
from tests.system.smtp import make_content, new_test_id, queued_id, submit

Pair = tuple[Relay, Recorder]


def _public(key: Any, *, raw: bool) -> str:
    encoding, form = (
        (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        if raw
        else (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(key.public_key().public_bytes(encoding, form)).decode()


def key_records() -> dict[str, str]:
    """Give the DNS records of acme.example's keys."""
    return {
        f"{RSA_SELECTOR}._domainkey.acme.example": f"v=DKIM1; k=rsa; p={_public(rsa_key('acme'), raw=False)}",
        f"{ED25519_SELECTOR}._domainkey.acme.example": f"v=DKIM1; k=ed25519; p={_public(ed25519_key('acme'), raw=True)}",
    }


def verify(content: bytes) -> dict[str, bool]:
    """Give dkimpy's verdict on each signature, by algorithm."""
    records = key_records()

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return records.get(name.decode().rstrip("."), "").encode()

    verdicts = {}
    algorithms = re.findall(rb"^DKIM-Signature:(?:[^\r\n]|\r\n[ \t])*?\ba=([a-z0-9-]+)", content, re.MULTILINE)
    for index, algorithm in enumerate(algorithms):
        try:
            verdicts[algorithm.decode()] = dkim.DKIM(content).verify(idx=index, dnsfunc=lookup)
        except dkim.DKIMException:
            verdicts[algorithm.decode()] = False
    return verdicts


BOTH = {"rsa-sha256": True, "ed25519-sha256": True}


def one(sink: Recorder, test_id: str) -> bytes:
    return base64.b64decode(sink.wait_for(lambda record: record["test_id"] == test_id)[0]["content"])


@pytest.mark.parametrize("size", [300, 4096, 1_000_000])
def test_both_signatures_verify_with_dkimpy(relay_and_sink: Pair, size: int) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    queued_id(submit(relay.ports["cleartext"], make_content(test_id, size), [f"{test_id}@dest.example"]))
    assert verify(one(sink, test_id)) == BOTH


@pytest.mark.row("G11")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: content + b"more\r\n", id="body appended"),
        pytest.param(lambda content: b"From: <x@evil.example>\r\n" + content, id="second From"),
        pytest.param(lambda content: b"Subject: other\r\n" + content, id="second Subject"),
        pytest.param(lambda content: b"Reply-To: <x@evil.example>\r\n" + content, id="Reply-To added"),
        pytest.param(lambda content: b"Cc: <x@evil.example>\r\n" + content, id="Cc added"),
        pytest.param(lambda content: b"List-Unsubscribe: <https://evil.example>\r\n" + content, id="List-Unsubscribe added"),
        pytest.param(lambda content: b"Content-Type: text/html\r\n" + content, id="second Content-Type"),
    ],
)
def test_a_changed_message_does_not_verify(relay_and_sink: Pair, spoil: Any) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    queued_id(submit(relay.ports["cleartext"], make_content(test_id), [f"{test_id}@dest.example"]))
    content = one(sink, test_id)
    assert verify(content) == BOTH
    assert not any(verify(spoil(content)).values())


def test_signatures_have_an_end_and_no_length(relay_and_sink: Pair) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    queued_id(submit(relay.ports["cleartext"], make_content(test_id), [f"{test_id}@dest.example"]))
    for signature in re.findall(rb"^DKIM-Signature:(?:[^\r\n]|\r\n[ \t])*", one(sink, test_id), re.MULTILINE):
        tags = dict(tag.strip().split(b"=", 1) for tag in signature.partition(b":")[2].split(b";") if tag.strip())
        assert b"x" in tags
        assert b"l" not in tags
        assert tags[b"c"] == b"relaxed/relaxed"
        assert tags[b"d"] == b"acme.example"


def test_the_rsa_signature_verifies_with_opendkim(relay_and_sink: Pair, tmp_path: Path) -> None:
    relay, sink = relay_and_sink
    opendkim = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
    if opendkim is None:
        pytest.skip("opendkim is not installed")
    test_id = new_test_id()
    queued_id(submit(relay.ports["cleartext"], make_content(test_id), [f"{test_id}@dest.example"]))
    content = one(sink, test_id)
    # OpenDKIM judges a message by all its signatures, so it is shown the RSA one alone
    content = re.sub(
        rb"^DKIM-Signature:(?:[^\r\n]|\r\n[ \t])*a=ed25519(?:[^\r\n]|\r\n[ \t])*\r\n", b"", content, flags=re.MULTILINE
    )
    assert list(verify(content)) == ["rsa-sha256"]
    (tmp_path / "mail.eml").write_bytes(content)
    (tmp_path / "spoilt.eml").write_bytes(content.replace(b"Subject: Scan", b"Subject: Span"))
    name = f"{RSA_SELECTOR}._domainkey.acme.example"
    (tmp_path / "keys").write_text(f"{name} {key_records()[name]}\n")
    (tmp_path / "conf").write_text(f"Mode v\nTestPublicKeys {tmp_path / 'keys'}\nSyslog no\n")

    def judge(file: str) -> str:
        words = [opendkim, "-x", str(tmp_path / "conf"), "-vvv", "-t", str(tmp_path / file)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    assert "verification (s=s1, d=acme.example, 2048-bit key) succeeded" in judge("mail.eml")
    assert "succeeded" not in judge("spoilt.eml")


class _Mailbox:
    """An aiosmtpd handler that keeps."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # aiosmtpd names it so
        self.mails.append((list(envelope.rcpt_tos), bytes(envelope.original_content)))
        await asyncio.sleep(0)
        return "250 2.0.0 Ok"


@pytest.fixture
def aiosmtpd_server() -> Iterator[tuple[int, _Mailbox]]:
    mailbox = _Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=True, decode_data=False)
    controller.start()
    yield controller.port, mailbox
    controller.stop()


def test_aiosmtpd_receives(tmp_path: Path, aiosmtpd_server: tuple[int, _Mailbox]) -> None:
    port, mailbox = aiosmtpd_server
    test_id = new_test_id()
    with running(tmp_path, Settings(next_hop=f"127.0.0.1:{port}")) as (relay, _):
        recipients = [f"a-{test_id}@dest.example", f"b-{test_id}@dest.example"]
        message = queued_id(submit(relay.ports["cleartext"], make_content(test_id), recipients))
        relay.wait_final({message})
    ((received_for, content),) = mailbox.mails
    assert sorted(received_for) == recipients
    assert verify(content) == BOTH


def test_smtp_sink_receives(tmp_path: Path) -> None:
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("smtp-sink is not installed")
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, *user, f"127.0.0.1:{port}", "50"], stdout=subprocess.DEVNULL, cwd="/tmp")
    try:
        with running(tmp_path / "relay", Settings(next_hop=f"127.0.0.1:{port}")) as (relay, _):
            messages = {
                queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), ["a@dest.example"])) for _ in range(20)
            }
            relay.wait_final(messages)
            kinds = Counter(event["kind"] for event in relay.events())
        assert kinds == {"accepted": 20, "delivered": 20}
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(180)
def test_postfix_receives(tmp_path: Path) -> None:
    if not postfix_module.AVAILABLE:
        pytest.skip("needs Postfix, and root to run an instance of it")
    settings = """virtual_mailbox_domains = dest.example
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
message_size_limit = 100000000
virtual_mailbox_limit = 0
"""
    test_ids = [new_test_id() for _ in range(3)]
    with postfix_module.postfix(settings) as instance:
        with running(tmp_path, Settings(next_hop=f"127.0.0.1:{instance.port}")) as (relay, _):
            messages = {
                queued_id(submit(relay.ports["cleartext"], make_content(test_id, 20_000), [f"{test_id}@dest.example"]))
                for test_id in test_ids
            }
            relay.wait_final(messages)
            assert {event["kind"] for event in relay.events()} == {"accepted", "delivered"}
        wait_until(lambda: len(instance.mails()) >= len(test_ids), "Postfix filed all", 30)
        for mail in instance.mails():
            content = re.sub(rb"\A(?:(?:Return-Path|X-Original-To|Delivered-To):[^\n]*\n)+", b"", mail)
            assert verify(content.replace(b"\n", b"\r\n")) == BOTH
