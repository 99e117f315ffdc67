"""The sending API with real processes: what a program sends is what the next hop gets, and what became of it can be asked."""

import email
import email.policy
import time
from collections.abc import Iterator

import pytest

from tests.system.directory import Settings
from tests.system.harness import Recorder, Relay, wait_until
from tests.system.http_client import Api, base64_of, content_at, letter, raw_message, serving

Trio = tuple[Relay, Recorder, Api]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """One relay with an API for tests that harm nobody."""
    with serving(tmp_path_factory.mktemp("api"), Settings(routes={"dead.example": "127.0.0.1:9"})) as running:
        yield running


def test_a_message_in_parts_arrives_as_every_reader_should_show_it(trio: Trio) -> None:
    _, sink, api = trio
    picture = bytes(range(256)) * 40
    answer = api.post(
        letter(
            to=["Bo Ærlig <bo@dest.example>", {"mailbox": "cc@dest.example", "name": "Cy, the \"cook\""}],
            subject="Blåbær på Ærø — " + "og mere " * 20,
            text="Kære Bo\n.\nFrom here on: 😀\n" + "x" * 1200,
            html='<p>Kære <img src="cid:logo@acme"></p>',
            headers={"X-Order": "nr. 7 på listen", "In-Reply-To": "<a@b.example>"},
            reply_to="svar@acme.example",
            attachments=[
                {"content": base64_of(picture), "filename": "å.png", "content_type": "image/png", "content_id": "logo@acme"},
                {"content": base64_of(b"a;b\r\n"), "filename": "../../tal.csv", "content_type": "text/csv; charset=utf-8"},
            ],
        )
    )  # fmt: skip
    assert answer.status == 202, answer
    assert answer.headers["location"] == f"/v1/messages/{answer.json['id']}"
    assert [one["mailbox"] for one in answer.json["recipients"]] == ["bo@dest.example", "cc@dest.example"]
    content = content_at(sink, answer.json["id"])
    assert b"with HTTP\r\n" in content.partition(b"\r\n\r\n")[0]
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["Subject"] == "Blåbær på Ærø — " + ("og mere " * 20).strip() or message["Subject"].startswith(
        "Blåbær på Ærø"
    )
    assert [(one.display_name, one.addr_spec) for one in message["To"].addresses] == [
        ("Bo Ærlig", "bo@dest.example"),
        ('Cy, the "cook"', "cc@dest.example"),
    ]
    assert message["Reply-To"] == "svar@acme.example"
    assert message["X-Order"] == "nr. 7 på listen"
    assert message["DKIM-Signature"]
    assert message.get_body(("plain",)).get_content().replace("\r\n", "\n").startswith("Kære Bo\n.\nFrom here on: 😀\n")
    assert "cid:logo@acme" in message.get_body(("html",)).get_content()
    files = {part.get_filename(): part.get_payload(decode=True) for part in message.walk() if part.get_filename()}
    assert files == {"å.png": picture, "../../tal.csv": b"a;b\r\n"}


def test_blind_recipients_get_the_mail_and_nobody_sees_them(trio: Trio) -> None:
    _, sink, api = trio
    answer = api.post(letter(to=[], cc="cc@dest.example", bcc=["blind@dest.example", "cc@dest.example"]))
    assert [one["mailbox"] for one in answer.json["recipients"]] == ["cc@dest.example", "blind@dest.example"]
    content = content_at(sink, answer.json["id"])
    assert b"blind@" not in content
    sink.wait_for(lambda record: "blind@dest.example" in record["recipients"])


@pytest.mark.row("I8")
@pytest.mark.parametrize("text", ["{{7*7}}", "{{''.__class__}}", "${x}", "%s %(x)s {0}", "<%= 7*7 %>"])
def test_what_looks_like_a_template_is_text(trio: Trio, text: str) -> None:
    _, sink, api = trio
    answer = api.post(letter(subject=text, text=text, html=text, tag="{{tag}}"))
    content = content_at(sink, answer.json["id"])
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["Subject"] == text
    assert message.get_body(("plain",)).get_content().strip() == text
    assert api.get(f"/v1/messages/{answer.json['id']}").json["tag"] == "{{tag}}"


@pytest.mark.parametrize("ends", [b"\r\n", b"\n"])
def test_a_whole_message_arrives_octet_for_octet_but_for_the_documented_fields(trio: Trio, ends: bytes) -> None:
    _, sink, api = trio
    original = b"X-Test: 1\r\n" + raw_message(b"..\r\nBl\xc3\xa5b\xc3\xa6r  \r\n.\r\nthe end\r\n")
    answer = api.post_raw(original.replace(b"\r\n", ends))
    assert answer.status == 202, answer
    assert content_at(sink, answer.json["id"]).endswith(original)


def test_a_whole_message_may_come_inside_json_with_its_envelope(trio: Trio) -> None:
    _, sink, api = trio
    answer = api.post({"from": "ann@acme.example", "to": ["other@dest.example"], "raw": base64_of(raw_message()), "tag": "t"})
    assert answer.status == 202, answer
    assert content_at(sink, answer.json["id"]).endswith(raw_message())
    assert [one["mailbox"] for one in answer.json["recipients"]] == ["other@dest.example"]


def test_submission_fields_in_a_whole_message_are_heard_and_removed_and_the_request_goes_before_them(trio: Trio) -> None:
    _, sink, api = trio
    raw = b"X-Postbud-Tag: field\r\nX-Postbud-Campaign: spring\r\n" + raw_message()
    answer = api.post({"from": "ann@acme.example", "to": "you@dest.example", "raw": base64_of(raw), "tag": "request"})
    state = api.get(f"/v1/messages/{answer.json['id']}").json
    assert (state["tag"], state["campaign"]) == ("request", "spring")
    assert b"X-Postbud" not in content_at(sink, answer.json["id"])


def test_a_large_message_streams_to_disk_and_arrives_whole(trio: Trio) -> None:
    _, sink, api = trio
    body = b"0123456789abcdef" * 4 + b"\r\n"
    original = raw_message(body * 40_000)
    answer = api.post_raw(original)
    assert answer.status == 202, answer
    assert content_at(sink, answer.json["id"]).endswith(original)
    octets = bytes(range(256)) * 8_000
    answer = api.post(letter(attachments=[{"content": base64_of(octets), "filename": "big.bin"}]))
    message = email.message_from_bytes(content_at(sink, answer.json["id"]))
    assert message.get_payload()[1].get_payload(decode=True) == octets


def test_a_message_tells_its_deliveries_and_events_until_the_end(trio: Trio) -> None:
    _, _, api = trio
    answer = api.post(letter(to=["you@dest.example", "rcpt-550-x@dest.example"], metadata={"order": "7"}, campaign="spring"))
    path = answer.headers["location"]
    state = wait_until(
        lambda: (found := api.get(path).json)["deliveries"][1]["state"] == "bounced" and found, "the second one bounces"
    )
    assert {one["mailbox"]: one["state"] for one in state["deliveries"]} == {
        "you@dest.example": "delivered",
        "rcpt-550-x@dest.example": "bounced",
    }
    assert state["events"][0]["kind"] == "accepted"
    assert {event["kind"] for event in state["events"]} == {"accepted", "delivered", "bounced"}
    assert (state["subject"], state["campaign"], state["metadata"]) == ("Hello", "spring", '{"order":"7"}')
    assert state["created_at"] == answer.json["created_at"]


def test_what_is_scheduled_waits_and_can_be_cancelled_once(trio: Trio) -> None:
    relay, sink, api = trio
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    answer = api.post(letter(send_at=at, to=["later@dest.example", "much@dest.example"]))
    path = answer.headers["location"]
    state = api.get(path).json
    assert [one["state"] for one in state["deliveries"]] == ["queued", "queued"]
    assert state["deliveries"][0]["due_at"].startswith(at[:16])
    cancelled = api.delete(path)
    assert (cancelled.status, cancelled.json["cancelled"]) == (200, 2)
    assert {one["state"] for one in cancelled.json["message"]["deliveries"]} == {"cancelled"}
    again = api.delete(path)
    assert (again.status, again.json["code"]) == (409, "not_cancellable")
    reasons = [event["reason"] for event in relay.events_of(answer.json["id"]) if event["kind"] == "cancelled"]
    assert reasons == ["cancelled by its sender"] * 2
    assert not [record for record in sink.received() if "later@dest.example" in record["recipients"]]


def test_what_is_deferred_can_be_cancelled(trio: Trio) -> None:
    _, _, api = trio
    answer = api.post(letter(to="you@dead.example"))
    path = answer.headers["location"]
    wait_until(lambda: "deferred" in {event["kind"] for event in api.get(path).json["events"]}, "it is deferred")
    assert wait_until(lambda: (said := api.delete(path)).status == 200 and said, "it is cancelled").json["cancelled"] == 1


def test_mail_of_a_sandbox_is_captured_and_never_leaves(trio: Trio) -> None:
    _, sink, api = trio
    answer = api.post(letter(to="sandboxed@dest.example"), key="api-sandbox")
    assert answer.status == 202, answer
    state = api.get(answer.headers["location"], key="api-sandbox").json
    assert [one["state"] for one in state["deliveries"]] == ["captured"]
    assert not [record for record in sink.received() if "sandboxed@dest.example" in record["recipients"]]


def test_a_mailbox_beyond_ascii_needs_no_word_from_the_program(trio: Trio) -> None:
    _, sink, api = trio
    answer = api.post(letter(to="grød@dest.example"))
    assert answer.status == 202, answer
    assert "To: grød@dest.example\r\n".encode() in content_at(sink, answer.json["id"])


def test_the_api_tells_what_there_is_and_describes_itself(trio: Trio) -> None:
    _, _, api = trio
    index = api.get("/v1", key=None).json
    assert index["messages"] == "/v1/messages"
    described = api.get(index["openapi"], key=None).json
    assert described["openapi"] == "3.1.0"
    fields = described["components"]["schemas"]["NewMessage"]
    assert {"from", "to", "raw", "attachments"} <= set(fields["properties"])
    assert fields["additionalProperties"] is False
    assert api.get("/v1/problems/bad_line_ends", key=None).json["status"] == 422
    assert api.get("/v1/problems/nothing", key=None).status == 404
    assert (api.get("/v2", key=None).status, api.get("/v1/messages").status) == (404, 405)
    assert api.get("/v1/messages").headers["allow"] == "POST"


def test_the_api_counts_what_it_does(trio: Trio) -> None:
    relay, _, api = trio
    before = relay.metrics()
    api.post(letter())
    api.post(letter(), key="pbk_wrong")

    def value(text: str, name: str) -> float:
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    after = relay.metrics()
    for name, more in (
        ("postbud_messages_accepted_total", 1),
        ("postbud_api_requests_total", 2),
        ("postbud_api_key_failed_total", 1),
    ):
        assert value(after, name) - value(before, name) == more, name


def test_https_is_served_with_the_relays_certificate(tmp_path: object) -> None:
    with serving(tmp_path, api="tls = true") as (_, sink, api):  # type: ignore[arg-type]
        answer = api.post(letter())
        assert answer.status == 202
        content = content_at(sink, answer.json["id"])
        assert b"with HTTPS\r\n" in content
        assert b"(using TLSv1.3 " in content


def test_a_stop_lets_a_request_finish(tmp_path: object) -> None:
    with serving(tmp_path, Settings()) as (relay, _, api), api.connect() as connection:  # type: ignore[arg-type]
        head = raw_head(api, 40)
        connection.sendall(head + raw_message()[:20])
        wait_until(lambda: b"postbud_api_requests_total 1.0" in relay.metrics().encode(), "the request is under way")
        assert relay.process is not None
        relay.process.terminate()
        wait_until(lambda: not api.answers(), "no more is accepted")
        connection.sendall(raw_message()[20:40])
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        assert relay.process.wait(30) == 0


def raw_head(api: Api, octets: int) -> bytes:
    from tests.system.directory import KEYS

    return (
        f"POST /v1/messages?from=ann@acme.example&to=you@dest.example HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n"
        f"Authorization: Bearer {KEYS['api-1']}\r\nContent-Type: message/rfc822\r\nContent-Length: {octets}\r\n\r\n"
    ).encode()
