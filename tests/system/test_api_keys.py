"""Who may ask the sending API what: keys, statuses, limits, and that no account sees another's messages."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbud.model.ids import IdSource, to_octets, to_text
from tests.system.directory import KEYS, SECRETS, Settings
from tests.system.harness import Recorder, Relay, wait_until
from tests.system.http_client import Answer, Api, letter, serving

Trio = tuple[Relay, Recorder, Api]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """One relay with two workers for tests that harm nobody."""
    with serving(tmp_path_factory.mktemp("api"), Settings(workers=2)) as running:
        yield running


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


@pytest.mark.row("I10")
def test_only_a_key_that_lives_opens_the_api(trio: Trio) -> None:
    _, _, api = trio
    assert said(api.post(letter(), key=None)) == (401, "auth_required")
    revoked = api.post(letter(), key="api-gone")
    assert said(revoked) == (401, "revoked")
    assert revoked.headers["www-authenticate"].startswith("Bearer")
    key = KEYS["api-1"]
    for wrong in (
        key[:-1],
        key[:-7] + "x" + key[-6:],
        "pbk_nobody_" + key[-38:],
        "",
        "Bearer",
        SECRETS["printer-1"],
        "x" * 5_000,
    ):
        assert said(api.post(letter(), key=wrong)) == (401, "auth_failed"), wrong
    basic = api.ask("POST", "/v1/messages", b"{}", key=None, Authorization="Basic cHJpbnRlci0xOng=")
    assert said(basic) == (401, "auth_failed")
    assert api.ask("GET", "/v1/messages/msg_x", key=None, authorization=f"bearer {key}").status == 404
    for path in ("/v1/messages/msg_x", f"/v1/messages/{key[:12]}"):
        assert api.get(path, key=None).status in {400, 401}


def test_the_secret_of_a_device_is_no_api_key_and_a_key_is_no_devices_secret(trio: Trio) -> None:
    relay, _, _ = trio
    import smtplib

    with smtplib.SMTP("127.0.0.1", relay.ports["cleartext"]) as device, pytest.raises(smtplib.SMTPAuthenticationError):
        device.login("crd_api_1", KEYS["api-1"])


def test_what_is_blocked_or_paused_or_used_up_is_said_with_when_to_come_again(trio: Trio) -> None:
    _, _, api = trio
    assert said(api.post(letter(), key="api-blocked")) == (403, "blocked")
    paused = api.post(letter(), key="api-paused")
    assert said(paused) == (503, "paused")
    assert int(paused.headers["retry-after"]) > 0
    foreign = api.post(letter(**{"from": "ann@beta.example"}))
    assert said(foreign) == (403, "not_allowed")
    answers = [api.post(letter(), key="api-capped") for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    assert answers[-1].json["code"] == "rate"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3601


@pytest.mark.row("I6")
def test_a_message_of_another_account_or_server_is_not_there(trio: Trio) -> None:
    _, _, api = trio
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    mine = api.post(letter(send_at=at)).json["id"]
    assert api.get(f"/v1/messages/{mine}").status == 200
    octets = to_octets(mine)
    never = to_text("msg", octets[:-4] + bytes(4))
    elsewhere = IdSource(12345, lambda: int(time.time() * 1000), bytes).message()
    for method in ("GET", "DELETE"):
        for key in ("api-beta", "api-2"):
            foreign = api.ask(method, f"/v1/messages/{mine}", key=key)
            assert said(foreign) == (404, "not_found")
            for nothing in (never, elsewhere):
                unknown = api.ask(method, f"/v1/messages/{nothing}", key=key)
                assert unknown.body.replace(nothing.encode(), b"") == foreign.body.replace(mine.encode(), b"")
                assert unknown.headers.keys() == foreign.headers.keys()
    for garbage in (
        "msg_",
        "x",
        "msg_" + "z" * 26,
        mine[:-1],
        mine.upper(),
        "dlv" + mine[3:],
        "foo" + mine[3:],
        "%2e%2e",
        "msg_%00",
    ):
        assert api.get(f"/v1/messages/{garbage}").status == 404, garbage
    assert api.get(f"/v1/messages/{mine}").json["deliveries"][0]["state"] == "queued"
    assert api.delete(f"/v1/messages/{mine}").status == 200


@pytest.mark.row("I6")
def test_an_idempotency_key_of_another_account_is_another_key(trio: Trio) -> None:
    _, _, api = trio
    mine = api.post(letter(), Idempotency_Key="the-same")
    other = api.post(letter(**{"from": "ann@beta.example"}), key="api-beta", Idempotency_Key="the-same")
    assert (mine.status, other.status) == (202, 202)
    assert mine.json["id"] != other.json["id"]


def test_wrong_keys_are_counted_and_a_right_one_always_passes(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, _, api):
        answers = [api.post(letter(), key="pbk_wrong") for _ in range(33)]
        assert [answer.status for answer in answers] == [401] * 30 + [429] * 3
        assert int(answers[-1].headers["retry-after"]) > 0
        assert api.post(letter()).status == 202


def test_a_block_is_felt_within_a_second_or_two(tmp_path: Path) -> None:
    with serving(tmp_path) as (relay, _, api):
        assert api.post(letter()).status == 202
        relay.write_accounts({"acct_acme": "blocked"})
        wait_until(
            lambda: said(api.post(letter())) == (403, "blocked") if api.post(letter()).status != 202 else None, "blocked", 5
        )
        relay.write_accounts({"acct_acme": "active"})
        wait_until(lambda: api.post(letter()).status == 202, "it is open again", 5)


def test_the_client_behind_a_trusted_proxy_is_known_and_nobody_elses_word_counts(tmp_path: Path) -> None:
    with serving(tmp_path, api='trusted_proxies = ["127.0.0.0/8"]') as (relay, _, api):
        answer = api.ask(
            "POST", "/v1/messages?from=ann@acme.example&to=you@dest.example", b"From: ann@acme.example\r\n\r\nx\r\n",
            Content_Type="message/rfc822", X_Forwarded_For="198.51.100.1, 203.0.113.9, 127.0.0.2",
        )  # fmt: skip
        assert [event["client"] for event in relay.events_of(answer.json["id"]) if event["kind"] == "accepted"] == [
            "203.0.113.9"
        ]


def test_more_connections_than_one_client_may_have_are_turned_away(tmp_path: Path) -> None:
    with serving(tmp_path, api="connections_per_address = 5") as (_, _, api):
        held = [api.connect() for _ in range(5)]
        try:
            wait_until(lambda: not api.answers(), "the sixth is turned away", 5)
            assert b" 503 " in api.talk(b"GET /v1 HTTP/1.1\r\nHost: x\r\n\r\n")
        finally:
            for connection in held:
                connection.close()
        wait_until(api.answers, "there is room again", 5)


def test_a_disk_without_room_is_said_with_when_to_come_again(tmp_path: Path) -> None:
    with serving(tmp_path, api=f"[spool]\nreserve_octets = {10**15}") as (_, _, api):
        answer = api.post(letter())
        assert said(answer) == (507, "no_space")
        assert int(answer.headers["retry-after"]) > 0


def test_a_new_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    import ssl

    from postbud.app.parts import utc_now
    from postbud.smtpd.tls import make_self_signed

    with serving(tmp_path, api="tls = true") as (relay, _, api):
        before = ssl.get_server_certificate(("127.0.0.1", api.port))
        folder = relay.data / "tls"
        make_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", "relay.example", utc_now)
        (tmp_path / "k.pem").replace(folder / "key.pem")
        (tmp_path / "c.pem").replace(folder / "certificate.pem")
        wait_until(lambda: ssl.get_server_certificate(("127.0.0.1", api.port)) != before, "the new one is served", 10)
        assert api.post(letter()).status == 202
