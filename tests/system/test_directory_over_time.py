"""The directory over a relay's life: a restart with a bad file, a deeper domain that comes later, a key file of any name."""

import base64
import email
import json
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.ports import free_port
from tests.system.conftest import Pair
from tests.system.directory import Settings, accounts_toml, rsa_pem
from tests.system.harness import Recorder, Relay, wait_until
from tests.system.smtp import Wire, make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]
DEEP = '[[account.domain]]\nname = "deep.acme.example"\n[[account.domain.dkim]]\nselector = "deep"\nkey_file = "{}"\n'


def write_directory(relay: Relay, text: str) -> None:
    temporary = relay.folder / "accounts.toml.new"
    temporary.write_text(text)
    temporary.replace(relay.folder / "accounts.toml")


def with_deep_domain(key_file: str) -> str:
    """Give the usual directory, in which acme has verified deep.acme.example, too."""
    before, found, after = accounts_toml().partition('[[account.server]]\nid = "srv_office"')
    assert found
    return before + DEEP.format(key_file) + found + after


def health(relay: Relay) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.telemetry_port}/health", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def send_deep(relay: Relay, recipient: str) -> tuple[str, str]:
    """Submit a message of deep.acme.example; give its id and its test id."""
    test_id = new_test_id()
    content = make_content(test_id, sender="printer@deep.acme.example")
    return queued_id(submit(relay.ports["cleartext"], content, [recipient.replace("@", f"{test_id}@")])), test_id


def signed_by(sink: Recorder, test_id: str) -> set[tuple[str, str]]:
    """Give d= and s= of each signature of a delivered message."""
    (record,) = sink.wait_for(lambda found: found["test_id"] == test_id and "@dest.example" in found["recipients"][0])
    fields = email.message_from_bytes(base64.b64decode(record["content"])).get_all("DKIM-Signature") or []
    return {(re.findall(r"\bd=([\w.]+)", field)[0], re.findall(r"\bs=(\w+)", field)[0]) for field in fields}


def test_a_restart_with_a_bad_directory_starts_from_the_last_good_copy_and_says_so(pair: Make) -> None:
    relay, sink = pair()
    port = free_port()
    relay.settings.routes = {"slow.example": f"127.0.0.1:{port}"}
    relay.write_settings()
    assert relay.stop() == 0
    relay.start()
    waiting = queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), ["a@slow.example"]))
    assert relay.stop() == 0
    write_directory(relay, "[[account\n")
    relay.settings.workers = 2  # a worker that has no copy of its own
    relay.settings.routes = {"slow.example": sink.next_hop}
    relay.write_settings()
    relay.start()
    assert "accounts.toml" in health(relay)["directory_problem"]
    assert "directory_not_read" in relay.log_path.read_text()
    assert "started with the last good copy" in relay.log_path.read_text()
    for _ in range(4):
        message = queued_id(submit(relay.ports["cleartext"], make_content(new_test_id()), ["a@dest.example"]))
        relay.wait_final({message})
    relay.wait_final({waiting})
    assert relay.events_of(waiting)[-1]["kind"] == "delivered"
    relay.write_accounts()
    wait_until(lambda: health(relay)["directory_problem"] is None, "the file is good again", 10)


def test_a_first_start_with_a_bad_directory_ends_with_its_reason(pair: Make) -> None:
    relay, _ = pair(start=False)
    write_directory(relay, "[[account\n")
    relay.start(wait=False)
    assert relay.process is not None
    assert relay.process.wait(30) != 0
    assert "accounts.toml" in relay.log_tail()


def test_a_deeper_domain_verified_later_decides_for_new_mail_and_for_what_is_queued(pair: Make) -> None:
    relay, sink = pair()
    (relay.folder / "deep").write_bytes(rsa_pem("deep"))
    first, first_id = send_deep(relay, "a@dest.example")
    relay.wait_final({first})
    queued, queued_test_id = send_deep(relay, "rcpt-once-452-@dest.example")
    write_directory(relay, with_deep_domain("deep"))
    time.sleep(0.8)
    later, later_id = send_deep(relay, "a@dest.example")
    relay.wait_final({queued, later})
    assert signed_by(sink, first_id) == {("acme.example", "s1"), ("acme.example", "s2")}
    assert signed_by(sink, later_id) == {("deep.acme.example", "deep")}
    assert signed_by(sink, queued_test_id) == {("deep.acme.example", "deep")}
    (accepted,) = [event for event in relay.events_of(later) if event["kind"] == "accepted"]
    assert accepted["signing_domain"] == "deep.acme.example"


def test_a_key_file_of_any_name_is_read_again_when_it_changes(pair: Make) -> None:
    relay, sink = pair()
    (relay.folder / "signing").mkdir()
    key = relay.folder / "signing" / "of-deep"
    write_directory(relay, with_deep_domain("signing/of-deep"))
    time.sleep(0.8)
    message, test_id = send_deep(relay, "a@dest.example")
    wait_until(lambda: [e["hold"] for e in relay.events_of(message) if e["kind"] == "held"] == ["key"], "it is held", 10)
    key.write_bytes(rsa_pem("deep"))
    relay.wait_final({message}, 15)
    assert signed_by(sink, test_id) == {("deep.acme.example", "deep")}


def test_sigterm_lets_a_transaction_under_way_finish_and_keeps_what_is_queued(pair: Make) -> None:
    settings = Settings(routes={"slow.example": f"127.0.0.1:{free_port()}"})
    relay, sink = pair(settings)
    port = relay.ports["cleartext"]
    queued = queued_id(submit(port, make_content(new_test_id()), ["a@slow.example"]))
    test_id = new_test_id()
    content = make_content(test_id, 5000)
    with Wire(port) as wire:
        wire.hello()
        wire.auth()
        wire.expect("MAIL FROM:<printer@acme.example>", 250)
        wire.expect("RCPT TO:<a@dest.example>", 250)
        wire.expect("DATA", 354)
        wire.send(content[:2000])
        assert relay.process is not None
        relay.process.terminate()
        wait_until(lambda: not relay.greets(), "new connections are refused", 10)
        wire.send(content[2000:].replace(b"\r\n.", b"\r\n..") + b".\r\n")
        message = queued_id(wire.reply())
        assert wire.reply().code in (421, 0)
    assert relay.process.wait(30) == 0
    settings.routes = {"slow.example": sink.next_hop}
    relay.write_settings()
    relay.start()
    relay.wait_final({queued, message})
    assert {relay.events_of(each)[-1]["kind"] for each in (queued, message)} == {"delivered"}
    assert len([record for record in sink.received() if record["test_id"] == test_id]) == 1
