"""Limits of credentials, submission fields, and what an operator can do and see from the command line."""

import base64
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postbud.link.secret import verify_secret
from tests.system.conftest import Pair
from tests.system.directory import SECRETS, Settings, accounts_toml
from tests.system.harness import POSTBUD, Recorder, Relay, running, wait_until
from tests.system.smtp import Reply, Wire, make_content, new_test_id, queued_id, submit

Make = Callable[..., Pair]
CONFIG = ("--config", "postbud.toml")
IN_FORCE_SECONDS = 0.8


@pytest.fixture(scope="module")
def with_limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two workers; slow.example leads nowhere and is tried again much later."""
    settings = Settings(workers=2, relay={"retry_first_seconds": 600, "retry_max_seconds": 600})
    settings.routes = {"slow.example": "127.0.0.1:1"}
    with running(tmp_path_factory.mktemp("limits"), settings) as pair:
        yield pair


@pytest.fixture
def relay(with_limits: Pair) -> Relay:
    return with_limits[0]


@pytest.fixture
def sink(with_limits: Pair) -> Recorder:
    return with_limits[1]


def write_directory(relay: Relay, text: str) -> None:
    temporary = relay.folder / "accounts.toml.new"
    temporary.write_text(text)
    temporary.replace(relay.folder / "accounts.toml")


def health(relay: Relay) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.telemetry_port}/health", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def send(relay: Relay, mailbox: str, *fields: str, username: str = "printer-1", sender: str = "printer@acme.example") -> Reply:
    content = make_content(new_test_id(), sender=sender)
    head = "".join(f"{field}\r\n" for field in fields).encode()
    return submit(relay.ports["cleartext"], head + content, [mailbox], username=username)


def kinds(relay: Relay, message: str) -> list[str]:
    return [event["kind"] for event in relay.events_of(message)]


def unique(mailbox: str = "a@dest.example") -> str:
    return mailbox.replace("@", f"-{new_test_id()}@")


def queue_slow(relay: Relay) -> str:
    """Leave a message that was deferred once and waits."""
    message = queued_id(send(relay, unique("a@slow.example")))
    wait_until(lambda: "deferred" in kinds(relay, message), "it is deferred", 20)
    return message


# -- limits of credentials ----------------------------------------------------------------------------------------------


def test_an_hourly_cap_holds_across_workers_and_says_when_to_come_again(relay: Relay) -> None:
    replies = [send(relay, unique(), username="capped-1") for _ in range(8)]
    assert [reply.code for reply in replies] == [250] * 3 + [450] * 5
    assert replies[-1].enhanced == "4.7.28"
    assert re.search(r"try again in \d+ seconds", replies[-1].text)
    assert send(relay, unique()).code == 250


def test_a_suppressed_recipient_is_refused_and_the_list_is_followed(relay: Relay) -> None:
    listed = relay.folder / "suppress.txt"
    listed.write_text("# left\nLeft@Dest.example\n")
    write_directory(relay, f'suppression_file = "suppress.txt"\n{accounts_toml()}')
    time.sleep(IN_FORCE_SECONDS)
    try:
        reply = send(relay, "left@dest.example")
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert "[SUP-LIST]" in reply.text
        assert send(relay, "LEFT@DEST.EXAMPLE").code == 550
        assert send(relay, "left2@dest.example").code == 250
        listed.write_text("left2@dest.example\n")
        time.sleep(IN_FORCE_SECONDS)
        assert send(relay, "left2@dest.example").code == 550
        assert send(relay, "left@dest.example").code == 250
    finally:
        relay.write_accounts()
        time.sleep(IN_FORCE_SECONDS)


def test_a_credential_with_allow_from_sends_as_nobody_else(relay: Relay) -> None:
    allowed = 'username = "fax-1"\nallow_from = ["Fax@acme.example", "@sub.acme.example"]'
    write_directory(relay, accounts_toml().replace('username = "fax-1"', allowed))
    time.sleep(IN_FORCE_SECONDS)
    try:
        assert send(relay, unique(), username="fax-1", sender="fax@acme.example").code == 250
        assert send(relay, unique(), username="fax-1", sender="any@sub.acme.example").code == 250
        reply = send(relay, unique(), username="fax-1", sender="boss@acme.example")
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert "[C7-ALLOWED]" in reply.text
        assert send(relay, unique(), sender="boss@acme.example").code == 250
    finally:
        relay.write_accounts()
        time.sleep(IN_FORCE_SECONDS)


@pytest.mark.parametrize(("mode", "code"), [("off", 250), ("shadow", 250), ("enforce", 550)])
def test_a_rule_acts_by_the_mode_that_the_operator_set(relay: Relay, mode: str, code: int) -> None:
    write_directory(relay, accounts_toml() + f'\n[[policy]]\nrule = "C7-DATE"\nmode = "{mode}"\n')
    time.sleep(IN_FORCE_SECONDS)
    try:
        content = make_content(new_test_id()).replace(b"Tue, 24 Nov 2026", b"Tue, 24 Nov 1998")
        reply = submit(relay.ports["cleartext"], content, [unique()])
        assert reply.code == code
        if code == 250:
            message = queued_id(reply)
            relay.wait_final({message})
            findings = relay.events_of(message)[0].get("findings", [])
            assert [finding for finding in findings if finding.startswith("C7-DATE/")] == (
                [] if mode == "off" else ["C7-DATE/1 shadow"]
            )
        else:
            assert "[C7-DATE]" in reply.text
    finally:
        relay.write_accounts()
        time.sleep(IN_FORCE_SECONDS)


# -- submission fields --------------------------------------------------------------------------------------------------


@pytest.mark.row("G9")
def test_submission_fields_are_read_into_events_and_never_leave(relay: Relay, sink: Recorder) -> None:
    mailbox = unique()
    message = queued_id(
        send(
            relay, mailbox, "X-Postbud-Tag: invoice", "x-postbud-CAMPAIGN: winter", "X-Postbud-List:\r\n news",
            'X-Postbud-Metadata: {"order": 7}',
        )
    )  # fmt: skip
    relay.wait_final({message})
    for event in relay.events_of(message):
        said = {key: event.get(key) for key in ("tag", "campaign", "list", "metadata")}
        assert said == {"tag": "invoice", "campaign": "winter", "list": "news", "metadata": '{"order": 7}'}, event["kind"]
    (record,) = [record for record in sink.received() if record["recipients"] == [mailbox]]
    assert b"x-postbud" not in base64.b64decode(record["content"]).lower()


def test_send_at_delays_a_message(relay: Relay, sink: Recorder) -> None:
    due = datetime.now(UTC) + timedelta(seconds=4)
    mailbox = unique()
    message = queued_id(send(relay, mailbox, f"X-Postbud-Send-At: {due.isoformat()}"))
    assert [row["message"] for row in relay.queue() if row["message"] == message] == [message]
    relay.wait_final({message}, 20)
    (record,) = [record for record in sink.received() if record["recipients"] == [mailbox]]
    assert record["at"] >= due.timestamp() - 0.1
    print(f"sent {record['at'] - due.timestamp():.2f} s after its time")


@pytest.mark.parametrize(
    "field",
    [
        "X-Postbud-Tga: mistyped",
        "X-Postbud-Send-At: tomorrow",
        "X-Postbud-Send-At: 2026-12-24T17:00:00",
        "X-Postbud-Send-At: 2199-12-24T17:00:00Z",
        "X-Postbud-Tag: " + "a" * 65,
        "X-Postbud-Tag: a\r\nX-Postbud-Tag: b",
    ],
)
def test_a_submission_field_that_cannot_be_is_refused_by_name(relay: Relay, field: str) -> None:
    reply = send(relay, unique(), field)
    assert (reply.code, reply.enhanced) == (554, "5.6.0")
    assert field.partition(":")[0] in reply.text


# -- the queue ------------------------------------------------------------------------------------------------------------


def test_a_cancelled_message_is_never_sent(relay: Relay, sink: Recorder) -> None:
    message = queued_id(
        send(relay, mailbox := unique(), f"X-Postbud-Send-At: {(datetime.now(UTC) + timedelta(5)).isoformat()}")
    )
    relay.command("queue", "cancel", *CONFIG, message)
    wait_until(lambda: kinds(relay, message) == ["accepted", "cancelled"], "the end is an event", 10)
    relay.command("queue", "retry", *CONFIG, message)
    time.sleep(1.5)
    assert not [record for record in sink.received() if record["recipients"] == [mailbox]]
    assert not [row for row in relay.queue() if row["message"] == message]
    assert kinds(relay, message) == ["accepted", "cancelled"]


def test_held_mail_stays_through_a_retry_until_it_is_released(relay: Relay, sink: Recorder) -> None:
    due = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    message = queued_id(send(relay, mailbox := unique(), f"X-Postbud-Send-At: {due}"))
    relay.command("queue", "hold", *CONFIG, message)
    relay.command("queue", "retry", *CONFIG, message)
    time.sleep(3.0)
    assert not [record for record in sink.received() if record["recipients"] == [mailbox]]
    assert message in relay.command("queue", "list", *CONFIG, "--held", "--json")
    relay.command("queue", "release", *CONFIG, message)
    relay.wait_final({message}, 20)
    assert kinds(relay, message) == ["accepted", "held", "released", "delivered"]


def test_the_queue_is_listed_and_steered_by_account_domain_and_delivery(relay: Relay) -> None:
    first, second = queue_slow(relay), queue_slow(relay)
    rows = [
        json.loads(line) for line in relay.command("queue", "list", *CONFIG, "--domain", "slow.example", "--json").splitlines()
    ]
    assert {first, second} <= {row["message"] for row in rows}
    assert relay.command("queue", "list", *CONFIG, "--account", "acct_beta", "--json") == ""
    delivery = next(row["delivery"] for row in rows if row["message"] == first)
    shown = relay.command("queue", "show", *CONFIG, delivery)
    assert first in shown
    assert "acct_acme" in shown
    assert second not in shown
    assert "2 deliveries" in relay.command("queue", "cancel", *CONFIG, first, second)
    relay.wait_final({first, second}, 10)


@pytest.mark.parametrize("words", [("cancel",), ("retry",), ("cancel", "nonsense"), ("show", "msg_nonsense")])
def test_queue_commands_that_name_nothing_change_nothing(relay: Relay, words: tuple[str, ...]) -> None:
    done = run(relay.folder, "queue", words[0], *CONFIG, *words[1:])
    assert done.returncode != 0
    assert done.stderr
    assert "Traceback" not in done.stderr


# -- the directory while running --------------------------------------------------------------------------------------------


def test_a_directory_that_breaks_is_told_by_health_and_stops_nothing(relay: Relay) -> None:
    assert health(relay)["directory_problem"] is None
    write_directory(relay, "acount = 1\n" + accounts_toml())
    try:
        found = wait_until(lambda: health(relay)["directory_problem"], "the problem is told", 10)
        assert "did you mean `account`?" in found
        assert health(relay)["healthy"]
        assert send(relay, unique()).code == 250
        write_directory(relay, "[[account")
        wait_until(lambda: "did you mean" not in (health(relay)["directory_problem"] or "did you mean"), "and the next", 10)
        assert send(relay, unique()).code == 250
    finally:
        relay.write_accounts()
    wait_until(lambda: health(relay)["directory_problem"] is None, "the mend is told", 10)


# -- other commands -----------------------------------------------------------------------------------------------------------


def run(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(POSTBUD), *words], cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_credential_hash_prints_the_hash_alone_and_wants_a_long_secret(tmp_path: Path) -> None:
    secret = "twenty-characters-xx"
    first, second = (run(tmp_path, "credential", "hash", stdin=f"{secret}\n").stdout for _ in range(2))
    assert re.fullmatch(r"sha256\$[0-9a-f]+\$[0-9a-f]{64}\n", first)
    assert first != second
    assert verify_secret(first.strip(), secret.encode())
    assert not verify_secret(first.strip(), secret[1:].encode())
    short = run(tmp_path, "credential", "hash", stdin=f"{secret[1:]}\n")
    assert short.returncode == 2
    assert short.stdout == ""
    assert "20 characters" in short.stderr


def test_a_made_hash_signs_in(relay: Relay) -> None:
    made = relay.command("credential", "hash", stdin="another-secret-of-a-test\n").strip()
    new = f'[[account.server.credential]]\nid = "crd_new"\nusername = "new-1"\nsecret_hash = "{made}"\n'
    write_directory(
        relay,
        accounts_toml().replace(
            '[[account.server.credential]]\nid = "crd_fax_1"', f'{new}[[account.server.credential]]\nid = "crd_fax_1"'
        ),
    )
    time.sleep(IN_FORCE_SECONDS)
    SECRETS["new-1"] = "another-secret-of-a-test"
    try:
        with Wire(relay.ports["cleartext"]) as wire:
            wire.hello()
            assert wire.auth("new-1").code == 235
    finally:
        del SECRETS["new-1"]
        relay.write_accounts()


def test_config_check_is_content_with_what_is_good_and_names_what_is_not(relay: Relay, tmp_path: Path) -> None:
    assert "relay.example" in run(relay.folder, "config", "check", *CONFIG).stdout
    good = (relay.folder / "postbud.toml").read_text()
    for wrong, hint in (
        (good.replace("hostname =", "hostnam ="), "unknown key `hostnam`; did you mean `hostname`?"),
        (good.replace("role =", "roll =", 1), "unknown key `roll`; did you mean `role`?"),
        (good.replace("[relay]", "[relai]"), "did you mean `relay`?"),
        (good.replace("workers = 2", 'workers = "two"'), "workers"),
        (good.replace('role = "submission"', 'role = "both"', 1), "role is submission or inbound"),
        (good.replace('tls = "none"', 'tls = "some"', 1), "tls is"),
        ("[relay", "postbud.toml"),
    ):
        assert wrong != good
        (tmp_path / "postbud.toml").write_text(wrong)
        done = run(tmp_path, "config", "check", *CONFIG)
        assert done.returncode == 2, hint
        assert hint in done.stderr
        assert "Traceback" not in done.stderr


def test_config_check_with_a_directory_names_domains_that_would_be_held(relay: Relay) -> None:
    done = run(relay.folder, "config", "check", *CONFIG, "--directory", "accounts.toml")
    assert done.returncode == 1
    assert "paused.example has no [[account.domain.dkim]]" in done.stdout
    (relay.folder / "other.toml").write_text(accounts_toml().replace("acme-s1.pem", "none.pem"))
    done = run(relay.folder, "config", "check", *CONFIG, "--directory", "other.toml")
    assert "domain acme.example: key s1: key file none.pem" in done.stdout


def test_config_explain_shows_every_key_with_its_value(relay: Relay) -> None:
    shown = run(relay.folder, "config", "explain", *CONFIG).stdout.splitlines()
    for line in (
        'relay.hostname = "relay.example"',
        "relay.workers = 2",
        "spool.event_days = 7.0",
        "relay.size_limit_octets = 52428800",
    ):
        assert line in shown


# -- workers ------------------------------------------------------------------------------------------------------------------


def test_mail_of_workers_that_are_no_more_is_adopted_and_delivered(pair: Make) -> None:
    settings = Settings(workers=3, relay={"retry_first_seconds": 2, "retry_max_seconds": 2})
    settings.routes = {"later.example": "127.0.0.1:1"}
    relay, sink = pair(settings)
    mailboxes: dict[str, str] = {}
    for _ in range(24):
        mailbox = unique("a@later.example")
        mailboxes[queued_id(send(relay, mailbox))] = mailbox
    wait_until(lambda: all("deferred" in kinds(relay, message) for message in mailboxes), "all are deferred", 30)
    owners = {event["spool"] for event in relay.events() if event.get("message") in mailboxes}
    assert len(owners) == 3
    assert relay.stop() == 0
    listed = relay.queue()
    assert {row["message"] for row in listed} == set(mailboxes)
    shown = relay.command("queue", "show", *CONFIG, next(iter(mailboxes)))
    assert mailboxes[next(iter(mailboxes))] in shown
    settings.workers = 1
    settings.routes = {}
    relay.write_settings()
    relay.start()
    relay.wait_final(set(mailboxes), 60)
    for message in mailboxes:
        assert sorted(kind for kind in kinds(relay, message) if kind != "deferred") == ["accepted", "delivered"]
    received = [mailbox for record in sink.received() for mailbox in record["recipients"]]
    assert sorted(received) == sorted(mailboxes.values())
    assert relay.queue() == []
    ids = [event["id"] for event in relay.events()]
    assert len(ids) == len(set(ids))
