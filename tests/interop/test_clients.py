"""Real clients submit unchanged."""

import base64
import shutil
import smtplib
import ssl
import subprocess
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.interop import postfix as postfix_module
from tests.system.directory import SECRETS
from tests.system.harness import Recorder, Relay, wait_until
from tests.system.smtp import client_context, new_test_id

Pair = tuple[Relay, Recorder]
HERE = Path(__file__).parent
SECRET = SECRETS["printer-1"]


def need(program: str) -> str:
    """Give a program's path; skip, saying so, when it is missing."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*words: str, stdin: str = "") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words[0]}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def content_of(sink: Recorder, test_id: str) -> bytes:
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id)
    content = base64.b64decode(record["content"])
    assert b"\nDKIM-Signature:" in content or content.startswith(b"DKIM-Signature:")
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    return content


@pytest.mark.parametrize(
    ("listener", "tls"), [("submission", "--tls"), ("implicit", "--tls-on-connect"), ("cleartext", "--tls-optional")]
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits(relay_and_sink: Pair, listener: str, tls: str, mechanism: str) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    said = run(
        need("swaks"), "--server", "127.0.0.1", "--port", str(relay.ports[listener]), tls, "--auth", mechanism,
        "--auth-user", "printer-1", "--auth-password", SECRET, "--from", "printer@acme.example",
        "--to", f"{test_id}@dest.example", "--header", f"X-Test-Id: {test_id}", "--helo", "swaks.example",
    )  # fmt: skip
    assert "250 2.0.0 Ok: queued as msg_" in said
    assert ("=== TLS started" in said) == (listener != "cleartext" or "STARTTLS" in said)
    assert b"This is a test mailing" in content_of(sink, test_id)


def test_swaks_hears_no_for_a_wrong_secret(relay_and_sink: Pair) -> None:
    relay, _ = relay_and_sink
    done = subprocess.run(
        [need("swaks"), "--server", "127.0.0.1", "--port", str(relay.ports["implicit"]), "--tls-on-connect", "--auth", "PLAIN",
         "--auth-user", "printer-1", "--auth-password", "wrong", "--from", "printer@acme.example", "--to", "a@dest.example"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "535 5.7.8" in done.stdout


def test_smtp_source_submits_with_a_network_credential(relay_and_sink: Pair) -> None:
    relay, sink = relay_and_sink
    recipient = f"{new_test_id()}@dest.example"
    run(
        need("smtp-source"), "-s", "4", "-m", "40", "-l", "4096", "-f", "printer@acme.example", "-t", recipient, "-M",
        "source.example", f"127.0.0.1:{relay.ports['network']}",
    )  # fmt: skip
    assert len(sink.wait_for(lambda record: recipient in record["recipients"], 40)) == 40


@pytest.mark.parametrize("listener", ["submission", "implicit"])
def test_smtplib_submits(relay_and_sink: Pair, listener: str) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    message = EmailMessage()
    message["From"] = "Printer <printer@acme.example>"
    message["To"] = f"{test_id}@dest.example"
    message["Subject"] = "Blåbærgrød"
    message["X-Test-Id"] = test_id
    message.set_content("Blåbærgrød\n.\n..x\n")
    client: smtplib.SMTP
    if listener == "implicit":
        client = smtplib.SMTP_SSL("127.0.0.1", relay.ports[listener], context=client_context())
    else:
        client = smtplib.SMTP("127.0.0.1", relay.ports[listener])
        client.starttls(context=client_context())
    with client:
        client.login("printer-1", SECRET)
        assert client.has_extn("smtputf8")
        assert client.send_message(message) == {}
    assert b"\r\n.\r\n..x\r\n" in content_of(sink, test_id)


def test_smtplib_submits_with_smtputf8(relay_and_sink: Pair) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    with smtplib.SMTP("127.0.0.1", relay.ports["submission"]) as client:
        client.starttls(context=client_context())
        client.login("printer-1", SECRET)
        content = f"From: <printer@acme.example>\r\nX-Test-Id: {test_id}\r\nSubject: Blåbær\r\n\r\nBlåbærgrød\r\n".encode()
        client.sendmail("printer@acme.example", [f"jörg-{test_id}@dest.example"], content, ["SMTPUTF8", "BODY=8BITMIME"])
    assert "Blåbærgrød".encode() in content_of(sink, test_id)


@pytest.mark.row("C7")
def test_smtplib_cannot_sign_in_without_tls_where_it_is_needed(relay_and_sink: Pair) -> None:
    relay, _ = relay_and_sink
    with smtplib.SMTP("127.0.0.1", relay.ports["submission"]) as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.login("printer-1", SECRET)


def test_tls_is_1_2_or_newer(relay_and_sink: Pair) -> None:
    relay, _ = relay_and_sink
    with smtplib.SMTP_SSL("127.0.0.1", relay.ports["implicit"], context=client_context()) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("mode", ["starttls", "implicit", "clear"])
def test_nodemailer_submits(relay_and_sink: Pair, mode: str) -> None:
    relay, sink = relay_and_sink
    if not (HERE / "node_modules" / "nodemailer").is_dir():
        pytest.skip("nodemailer is not installed (npm ci --prefix tests/interop)")
    test_id = new_test_id()
    port = relay.ports[{"starttls": "submission", "implicit": "implicit", "clear": "cleartext"}[mode]]
    said = run(need("node"), str(HERE / "send.js"), str(port), mode, "printer-1", SECRET, test_id, f"{test_id}@dest.example")
    assert "queued as msg_" in said
    assert base64.b64encode(bytes([7] * 57)) in content_of(sink, test_id)


@pytest.mark.parametrize(("listener", "starttls"), [("submission", "on"), ("implicit", "off")])
def test_msmtp_submits(relay_and_sink: Pair, listener: str, starttls: str) -> None:
    relay, sink = relay_and_sink
    test_id = new_test_id()
    run(
        need("msmtp"), "--host=127.0.0.1", f"--port={relay.ports[listener]}", "--tls=on", f"--tls-starttls={starttls}",
        "--tls-certcheck=off", "--auth=plain",
        "--user=printer-1", f"--passwordeval=echo {SECRET}", "--from=printer@acme.example",
        f"{test_id}@dest.example",
        stdin=f"From: printer@acme.example\nTo: {test_id}@dest.example\nSubject: x\nX-Test-Id: {test_id}\n\nbody\n.\nmore\n",
    )  # fmt: skip
    assert b"\r\nbody\r\n.\r\nmore\r\n" in content_of(sink, test_id)


@pytest.mark.timeout(180)
def test_postfix_submits_as_a_smarthost_client(relay_and_sink: Pair) -> None:
    relay, sink = relay_and_sink
    if not postfix_module.AVAILABLE:
        pytest.skip("needs Postfix, and root to run an instance of it")
    settings = f"""relayhost = [127.0.0.1]:{relay.ports["submission"]}
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{{{ [127.0.0.1]:{relay.ports["submission"]}=printer-1:{SECRET} }}}}
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = encrypt
smtp_host_lookup = native
"""
    test_ids = [new_test_id() for _ in range(5)]
    with postfix_module.postfix(settings) as instance:
        with smtplib.SMTP("127.0.0.1", instance.port) as client:
            for test_id in test_ids:
                content = (
                    f"From: <printer@acme.example>\r\nX-Test-Id: {test_id}\r\nSubject: x\r\n\r\nBlåbærgrød\r\n.\r\n".encode()
                )
                recipients = [f"a-{test_id}@dest.example", f"b-{test_id}@other.example"]
                client.sendmail("printer@acme.example", recipients, content, ["BODY=8BITMIME"])
        wait_until(lambda: instance.log.count("status=sent") >= 2 * len(test_ids), "Postfix handed all on", 60)
        assert instance.log.count("queued as msg_") >= 2 * len(test_ids)
        for test_id in test_ids:
            assert sink.wait_for(lambda record, test_id=test_id: record["test_id"] == test_id, 1)
