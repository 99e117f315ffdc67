"""Status and keys while the relay runs: who is stopped, how soon, and that what was held goes out afterwards (row 61)."""

import base64
import time
from collections.abc import Callable, Iterator

import pytest

from tests.interop.test_servers import BOTH, verify
from tests.system.conftest import Pair
from tests.system.directory import Settings, accounts_toml
from tests.system.harness import Recorder, Relay, running, wait_until
from tests.system.smtp import Wire, make_content, new_test_id, queued_id, submit

LIMIT_SECONDS = 10.0  # ten times the second that the design promises
Change = Callable[[Relay], None]


@pytest.fixture(scope="module")
def stopped_and_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A relay of two workers whose directory these tests change and put back."""
    with running(tmp_path_factory.mktemp("holds"), Settings(workers=2)) as pair:
        yield pair


@pytest.fixture
def relay(stopped_and_started: Pair) -> Iterator[Relay]:
    yield stopped_and_started[0]
    stopped_and_started[0].write_accounts()
    in_force(stopped_and_started[0], "")


@pytest.fixture
def sink(stopped_and_started: Pair) -> Recorder:
    return stopped_and_started[1]


def problem_of_auth(relay: Relay, username: str = "printer-1") -> str:
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        reply = wire.auth(username)
        if reply.code == 235:
            reply = wire.say("MAIL FROM:<printer@acme.example>")
        return "" if reply.code == 250 else f"{reply.code} {reply.text}"


def in_force(relay: Relay, begins: str) -> None:
    """Wait until a change of the directory reached both workers: one answers so, the other looks as often."""
    wait_until(lambda: problem_of_auth(relay)[:3] == begins, "the change is in force", LIMIT_SECONDS)
    time.sleep(0.6)


def rewrite(relay: Relay, old: str, new: str) -> None:
    """Change one place of the directory file, whole at once."""
    text = accounts_toml()
    assert old in text
    temporary = relay.folder / "accounts.toml.new"
    temporary.write_text(text.replace(old, new, 1))
    temporary.replace(relay.folder / "accounts.toml")


def queue_one(relay: Relay, mailbox: str) -> tuple[str, str]:
    """Submit one message; give its id and its test id."""
    test_id = new_test_id()
    reply = submit(relay.ports["cleartext"], make_content(test_id), [f"{mailbox}{test_id}@dest.example"])
    return queued_id(reply), test_id


def holds_of(relay: Relay, message: str, kind: str) -> list[str]:
    return [event["hold"] for event in relay.events_of(message) if event["kind"] == kind]


def kinds(relay: Relay, message: str) -> list[str]:
    return [event["kind"] for event in relay.events_of(message)]


def block(relay: Relay) -> None:
    relay.write_accounts({"acct_acme": "blocked"})


def pause(relay: Relay) -> None:
    rewrite(relay, 'id = "srv_office"', 'id = "srv_office"\nstatus = "paused"')


def idle_session(relay: Relay) -> Wire:
    wire = Wire(relay.ports["cleartext"])
    wire.hello()
    assert wire.auth().code == 235
    return wire


@pytest.mark.row("F7")
def test_a_block_ends_idle_sessions_at_once_and_refuses_auth(relay: Relay) -> None:
    with idle_session(relay) as wire:
        began = time.monotonic()
        block(relay)
        reply = wire.reply()
        took = time.monotonic() - began
        print(f"a block reached an idle session in {took:.2f} s")
        assert reply.code == 421
        assert wire.ended()
        assert took < LIMIT_SECONDS
    in_force(relay, "525")
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        reply = wire.auth()
        assert (reply.code, reply.enhanced) == (525, "5.7.13")


@pytest.mark.row("F7")
def test_a_block_in_the_middle_of_a_transaction_is_said_before_the_250(relay: Relay) -> None:
    with idle_session(relay) as wire:
        wire.expect("MAIL FROM:<printer@acme.example>", 250)
        wire.expect("RCPT TO:<a@dest.example>", 250)
        wire.expect("DATA", 354)
        wire.send(b"From: <printer@acme.example>\r\n\r\nx\r\n")
        block(relay)
        in_force(relay, "525")
        wire.send(b".\r\n")
        reply = wire.reply()
        assert reply.code in (421, 550)


@pytest.mark.parametrize(("change", "hold"), [(block, "block"), (pause, "pause")])
def test_queued_mail_is_held_by_the_status_and_goes_when_it_is_lifted(
    relay: Relay, sink: Recorder, change: Change, hold: str
) -> None:
    message, test_id = queue_one(relay, "rcpt-once-452-")
    change(relay)
    wait_until(lambda: holds_of(relay, message, "held") == [hold], "the message is held", 15)
    (row,) = [row for row in relay.queue() if row["message"] == message]
    assert row["held_by"] == [hold]
    time.sleep(2.0)
    assert not [record for record in sink.received() if record["test_id"] == test_id]
    began = time.monotonic()
    relay.write_accounts()
    wait_until(lambda: holds_of(relay, message, "released"), "it is released", LIMIT_SECONDS)
    print(f"released after {time.monotonic() - began:.2f} s")
    relay.wait_final({message}, 15)
    assert set(holds_of(relay, message, "released")) == {hold}
    assert kinds(relay, message)[-1] == "delivered"
    assert len([record for record in sink.received() if record["test_id"] == test_id]) == 1


def remove_acme(relay: Relay) -> None:
    """Write a directory without the account, as a slip of an editor might."""
    temporary = relay.folder / "accounts.toml.new"
    temporary.write_text('[[account]]\nid = "acct_beta"' + accounts_toml().partition('[[account]]\nid = "acct_beta"')[2])
    temporary.replace(relay.folder / "accounts.toml")


def test_mail_of_an_account_that_is_missing_for_a_while_is_held_and_goes_when_it_is_back(relay: Relay, sink: Recorder) -> None:
    message, test_id = queue_one(relay, "rcpt-once-452-")
    remove_acme(relay)
    in_force(relay, "535")
    wait_until(lambda: holds_of(relay, message, "held") == ["block"], "the message is held", 15)
    relay.write_accounts({"acct_beta": "paused"})  # another change: the holds are reviewed again
    remove_acme(relay)
    time.sleep(1.0)
    assert [row["held_by"] for row in relay.queue() if row["message"] == message] == [["block"]]
    relay.write_accounts()
    relay.wait_final({message}, 15)
    assert kinds(relay, message)[-1] == "delivered"
    assert len([record for record in sink.received() if record["test_id"] == test_id]) == 1


def test_another_account_sends_while_one_is_blocked(relay: Relay) -> None:
    block(relay)
    in_force(relay, "525")
    content = make_content(new_test_id(), sender="b@beta.example")
    message = queued_id(
        submit(relay.ports["cleartext"], content, ["a@dest.example"], username="beta-1", sender="b@beta.example")
    )
    relay.wait_final({message}, 15)
    assert kinds(relay, message)[-1] == "delivered"


def test_a_pause_lets_a_client_in_and_asks_it_to_come_again(relay: Relay) -> None:
    with idle_session(relay) as wire:
        pause(relay)
        in_force(relay, "450")
        reply = wire.say("MAIL FROM:<printer@acme.example>")
        assert (reply.code, reply.enhanced) == (450, "4.7.1")
        assert "[PAUSED]" in reply.text
    with Wire(relay.ports["cleartext"]) as wire:
        wire.hello()
        assert wire.auth().code == 235
        assert "[PAUSED]" in wire.expect("MAIL FROM:<printer@acme.example>", 450).text


@pytest.mark.row("F7")
def test_a_revoked_credential_ends_its_sessions_and_no_others(relay: Relay) -> None:
    with idle_session(relay) as wire, Wire(relay.ports["cleartext"]) as other:
        other.hello()
        assert other.auth("fax-1").code == 235
        began = time.monotonic()
        rewrite(relay, 'username = "printer-1"', 'username = "printer-1"\nstatus = "revoked"')
        assert wire.reply().code == 421
        took = time.monotonic() - began
        print(f"a revocation reached an idle session in {took:.2f} s")
        assert took < LIMIT_SECONDS
        assert wire.ended()
        other.expect("NOOP", 250)
    in_force(relay, "535")
    assert problem_of_auth(relay, "fax-1") == ""


@pytest.mark.row("61")
def test_mail_whose_key_is_gone_is_held_and_goes_signed_when_it_is_back(relay: Relay, sink: Recorder) -> None:
    key = relay.folder / "acme-s1.pem"
    pem = key.read_bytes()
    key.unlink()
    try:
        time.sleep(1.5)
        message, test_id = queue_one(relay, "key-")
        wait_until(lambda: holds_of(relay, message, "held") == ["key"], "the message is held", 15)
        (row,) = [row for row in relay.queue() if row["message"] == message]
        assert row["held_by"] == ["key"]
        (event,) = [event for event in relay.events_of(message) if event["kind"] == "held"]
        assert "acme-s1.pem" in event["reason"]
        time.sleep(1.0)
        assert not [record for record in sink.received() if record["test_id"] == test_id]
        relay.command("queue", "retry", "--config", "postbud.toml", message)
        time.sleep(1.0)
        assert not [record for record in sink.received() if record["test_id"] == test_id]
    finally:
        key.write_bytes(pem)
    relay.wait_final({message}, 20)
    assert kinds(relay, message)[-1] == "delivered"
    (record,) = [record for record in sink.received() if record["test_id"] == test_id]
    assert verify(base64.b64decode(record["content"])) == BOTH


@pytest.mark.row("61")
def test_a_domain_without_any_key_is_never_sent_unsigned(relay: Relay, sink: Recorder) -> None:
    test_id = new_test_id()
    rewrite(relay, 'name = "paused.example"', 'name = "paused.example"\n[[account.domain]]\nname = "bare.example"')
    text = (relay.folder / "accounts.toml").read_text().replace('status = "paused"', 'status = "active"')
    (relay.folder / "accounts.toml").write_text(text)
    content = make_content(test_id, sender="x@bare.example")
    port = relay.ports["cleartext"]

    def accepted() -> str | None:
        reply = submit(port, content, [f"{test_id}@dest.example"], username="paused-1", sender="x@bare.example")
        return queued_id(reply) if reply.code == 250 else None

    message = wait_until(accepted, "the new directory is in force", LIMIT_SECONDS, 0.3)
    assert message is not None
    wait_until(lambda: holds_of(relay, message, "held") == ["key"], "the message is held", 15)
    assert not [record for record in sink.received() if record["test_id"] == test_id]
    relay.command("queue", "cancel", "--config", "postbud.toml", message)
    relay.wait_final({message}, 10)
