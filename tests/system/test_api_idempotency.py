"""One message for one Idempotency-Key, whatever happens: many at once, other workers, other numbers of workers, kill -9."""

import http.client
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system import invariants
from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, wait_until
from tests.system.http_client import Answer, Api, content_at, letter, raw_message, serving
from tests.system.http_load import HttpLoad
from tests.system.smtp import new_test_id

Trio = tuple[Relay, Recorder, Api]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """One relay with three workers for tests that harm nobody."""
    with serving(tmp_path_factory.mktemp("api"), Settings(workers=3)) as running:
        yield running


def accepted(relay: Relay, tag: str) -> list[str]:
    return [event["message"] for event in relay.events() if event["kind"] == "accepted" and event.get("tag") == tag]


@pytest.mark.row("I5")
def test_fifty_at_once_with_one_key_are_one_message_with_one_answer(trio: Trio) -> None:
    relay, sink, api = trio
    tag = new_test_id()
    message = letter(tag=tag, to=f"{tag}@dest.example")
    with ThreadPoolExecutor(50) as pool:
        answers: list[Answer] = list(pool.map(lambda _: api.post(message, Idempotency_Key=tag), range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 49
    assert accepted(relay, tag) == [answers[0].json["id"]]
    sink.wait_for(lambda record: f"{tag}@dest.example" in record["recipients"])
    time.sleep(0.5)
    assert len([record for record in sink.received() if f"{tag}@dest.example" in record["recipients"]]) == 1


@pytest.mark.row("I5")
def test_a_key_belongs_to_one_body_and_one_server(trio: Trio) -> None:
    relay, _, api = trio
    key, tag = new_test_id(), new_test_id()
    first = api.post(letter(tag=tag), Idempotency_Key=key)
    other = api.post(letter(tag=tag, subject="Another"), Idempotency_Key=key)
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    raw = api.post_raw(raw_message(), Idempotency_Key=key)
    assert (raw.status, raw.json["code"]) == (409, "idempotency_conflict")
    again = api.post(letter(tag=tag), Idempotency_Key=key)
    assert (again.status, again.body) == (202, first.body)
    elsewhere = api.post(letter(tag=tag), key="api-2", Idempotency_Key=key)
    assert elsewhere.json["id"] != first.json["id"]
    without = [api.post(letter(tag=tag)).json["id"] for _ in range(2)]
    assert len(set(without)) == 2
    assert len(accepted(relay, tag)) == 4


@pytest.mark.row("I5")
def test_what_was_refused_may_be_sent_again_with_its_key(trio: Trio) -> None:
    _, _, api = trio
    key = new_test_id()
    refused = api.post(letter(**{"from": "ann@other.example"}), Idempotency_Key=key)
    assert refused.status == 403
    assert api.post(letter(**{"from": "ann@other.example"}), Idempotency_Key=key).status == 403
    assert api.post(letter(), Idempotency_Key=key).status == 202


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "æ", "a\tb"])
def test_what_is_no_key_is_refused(trio: Trio, key: str) -> None:
    _, _, api = trio
    answer = api.ask(
        "POST", "/v1/messages", b"{}", Content_Type="application/json", Idempotency_Key=key.encode().decode("latin-1")
    )
    assert (answer.status, answer.json["code"]) == (400, "bad_request"), answer


def test_every_worker_gives_the_answers_of_every_other(trio: Trio) -> None:
    relay, sink, api = trio
    big = raw_message(b"0123456789" * 7 + b"\r\n") + (b"x" * 78 + b"\r\n") * 8_000
    for number in range(6):
        key = new_test_id()
        answer = api.post_raw(big, Idempotency_Key=key)
        assert answer.status == 202, (number, answer)
        assert content_at(sink, answer.json["id"]).endswith(big)
        assert {api.get(answer.headers["location"]).status for _ in range(6)} == {200}
        assert api.post_raw(big, Idempotency_Key=key).body == answer.body
    assert float(metric(relay, "postbud_api_forwarded_total")) > 0
    waiting = [api.post(letter(send_at="2026-12-24T00:00:00Z" if time.time() < 1798000000 else None)) for _ in range(6)]
    for answer in waiting:
        assert api.delete(answer.headers["location"]).status == 200
    for folder in sorted((relay.data / "spool").glob("worker-*/incoming")):
        wait_until(lambda folder=folder: not list(folder.iterdir()), "nothing is left behind")


def metric(relay: Relay, name: str) -> str:
    return next(line.split()[1] for line in relay.metrics().splitlines() if line.startswith(f"{name} "))


@pytest.mark.row("10")
@pytest.mark.timeout(240)
def test_a_retry_after_a_kill_between_commit_and_answer_hears_the_first_id(tmp_path: Path) -> None:
    """Every worker is killed at each of its tenth commits, before anybody hears of it; the client sends again."""
    with serving(tmp_path, Settings(), start=False) as (relay, sink, api):
        relay.start(failpoints="before_resolve=kill@10")
        ids: dict[str, str] = {}
        lost = 0
        for number in range(25):
            key = f"order-{number}"
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    answer = api.post(letter(tag=key, to=f"{key}@dest.example"), Idempotency_Key=key)
                except (OSError, http.client.HTTPException):
                    lost += 1
                    time.sleep(0.1)
                    continue
                if answer.status == 202:
                    ids[key] = answer.json["id"]
                    break
                time.sleep(0.1)
        assert len(ids) == 25
        assert lost > 0
        relay.kill_all()
        relay.start()
        relay.wait_drained()
        told = [event for event in relay.events() if event["kind"] == "accepted"]
        assert sorted((event["tag"], event["message"]) for event in told if event.get("tag")) == sorted(ids.items())
        for key, message in ids.items():
            assert api.post(letter(tag=key, to=f"{key}@dest.example"), Idempotency_Key=key).json["id"] == message
            sink.wait_for(lambda record, key=key: f"{key}@dest.example" in record["recipients"])


@pytest.mark.row("10", "4")
@pytest.mark.timeout(300)
def test_random_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    dice = random.Random(7)
    with serving(tmp_path, Settings(workers=2)) as (relay, sink, api):
        load = HttpLoad(api, tmp_path / "client.jsonl").start()
        for _ in range(8):
            time.sleep(1.0 + dice.random())
            if dice.random() < 0.3:
                relay.kill_all()
                relay.start()
            else:
                relay.kill(dice.choice(relay.workers()))
        time.sleep(1.0)
        counts = load.stop()
        assert load.problems == []
        assert counts["queued"] > 30, counts
        wait_until(relay.is_healthy, "all workers are back", 30)
        relay.wait_drained()
        report = invariants.check_relay(relay, sink, tmp_path / "client.jsonl")
        print(counts, report.as_json())
        assert report.violations == []
        assert report.counts["accepted_without_250"] == 0


@pytest.mark.row("10")
@pytest.mark.timeout(240)
def test_keys_are_known_when_the_number_of_workers_has_changed(tmp_path: Path) -> None:
    with serving(tmp_path, Settings(workers=2)) as (relay, _, api):
        keys = [new_test_id() for _ in range(12)]
        first = [api.post(letter(), Idempotency_Key=key).json["id"] for key in keys]
        for workers in (3, 1):
            assert relay.stop() == 0
            relay.settings.workers = workers
            relay.write_settings()
            relay.start()
            wait_until(api.answers, "it answers")
            assert [api.post(letter(), Idempotency_Key=key).json["id"] for key in keys] == first
