"""What the sending API must withstand: groups A11 and I of the specification of bad inputs, with real processes and sockets."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.directory import KEYS, Settings
from tests.system.harness import Recorder, Relay
from tests.system.http_client import Api, base64_of, content_at, letter, raw_message, serving

Trio = tuple[Relay, Recorder, Api]
END_OF_DATA = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
]  # fmt: skip
SMUGGLED = b"MAIL FROM:<smuggled@acme.example>\r\nRCPT TO:<victim@dest.example>\r\nDATA\r\nSmuggled\r\n.\r\n"
AUTH = f"Authorization: Bearer {KEYS['api-1']}\r\n".encode()
HOST = b"Host: api.example\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """One relay with an API for tests that harm nobody; its limit is a MiB."""
    settings = Settings(relay={"size_limit_octets": 1 << 20})
    with serving(tmp_path_factory.mktemp("api"), settings) as running:
        yield running


def problem(answer: Any, status: int, code: str) -> Any:
    """Check that an answer is this problem, and give it."""
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == f"/v1/problems/{code}"
    assert answer.json["title"]
    assert answer.json["detail"]
    return answer.json


@pytest.mark.row("A11")
@pytest.mark.parametrize("octets", END_OF_DATA)
def test_no_end_of_data_but_our_own_passes_the_raw_route(trio: Trio, octets: bytes) -> None:
    _, sink, api = trio
    content = raw_message(b"Hello" + octets + SMUGGLED)
    code = "bad_content" if b"\0" in octets else "bad_line_ends"
    problem(api.post_raw(content), 422, code)
    said = {"from": "ann@acme.example", "to": "you@dest.example", "raw": base64_of(content)}
    problem(api.post(said), 422, code)
    answer = api.post(letter(text=(b"Hello" + octets.replace(b"\0", b"") + SMUGGLED).decode()))
    assert answer.status == 202
    assert b"Smuggled" in content_at(sink, answer.json["id"])
    assert not [record for record in sink.received() if "victim@dest.example" in record["recipients"]]


@pytest.mark.row("A11")
def test_lf_everywhere_with_a_lonely_dot_is_one_message(trio: Trio) -> None:
    _, sink, api = trio
    answer = api.post_raw((raw_message() + b"\r\n.\r\n" + SMUGGLED).replace(b"\r\n", b"\n"))
    content = content_at(sink, answer.json["id"])
    assert b"Hi\r\n\r\n.\r\nMAIL FROM" in content
    assert not [record for record in sink.received() if "victim@dest.example" in record["recipients"]]


FORBIDDEN = ["\r\nBcc: x@y.example", "\n", "\r", "\0", "\u2028", "\u2029", "\x1b", "\x7f"]


@pytest.mark.row("I1")
@pytest.mark.parametrize("bad", FORBIDDEN)
def test_no_control_character_gets_into_a_header_and_each_field_is_named(trio: Trio, bad: str) -> None:
    _, _, api = trio
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subject": f"a{bad}b"}, "subject"),
        ({"from": f"ann{bad}@acme.example"}, "from"),
        ({"from": {"mailbox": "ann@acme.example", "name": f"A{bad}n"}}, "from.name"),
        ({"from": f"A{bad}n <ann@acme.example>"}, "from"),
        ({"to": ["you@dest.example", f"you@dest.example{bad}"]}, "to[1]"),
        ({"cc": f"you{bad}@dest.example"}, "cc[0]"),
        ({"bcc": [{"mailbox": f"you@{bad}dest.example"}]}, "bcc[0].mailbox"),
        ({"reply_to": f"you@dest.example{bad}"}, "reply_to[0]"),
        ({"headers": {"X-A": f"b{bad}c"}}, "headers.X-A"),
        ({"headers": {f"X-A{bad}": "b"}}, f"headers.X-A{bad}"),
        ({"attachments": [{"content": "", "filename": f"a{bad}b"}]}, "attachments[0].filename"),
        ({"attachments": [{"content": "", "content_id": f"a{bad}b"}]}, "attachments[0].content_id"),
        ({"attachments": [{"content": "", "content_type": f"a/b{bad}"}]}, "attachments[0].content_type"),
        ({"tag": f"a{bad}"}, "tag"),
        ({"list": f"a{bad}"}, "list"),
        ({"campaign": f"a{bad}"}, "campaign"),
        ({"metadata": f"a{bad}"}, "metadata"),
        ({"metadata": {"k": f"a{bad}"}}, "metadata.k"),
        ({"reverse_path": f"ann@acme.example{bad}"}, "reverse_path"),
    ]
    for change, field in cases:
        said = problem(api.post(letter(**change)), 422, "invalid_field")
        assert [error["field"] for error in said["errors"]] == [field], change
    assert b"\0" not in api.post(letter(text="a\0b")).body
    assert problem(api.post(letter(text="a\0b", html="\0")), 422, "invalid_field")["errors"][1]["field"] == "html"


@pytest.mark.row("I1")
def test_no_line_end_gets_into_an_envelope_by_the_address_of_the_request(trio: Trio) -> None:
    _, _, api = trio
    for query in ("?from=ann@acme.example&to=you@dest.example%0d%0aRCPT", "?from=ann@acme.example%00&to=you@dest.example"):
        problem(api.post_raw(raw_message(), query), 422, "invalid_field")
    problem(api.post_raw(raw_message(), "?from=ann@acme.example&to=%ff"), 400, "bad_request")
    problem(api.post_raw(raw_message(), "?from=ann@acme.example&to=you@dest.example&role=owner"), 422, "unknown_field")
    problem(api.post_raw(raw_message(), "?to=you@dest.example"), 422, "invalid_field")
    problem(api.post_raw(raw_message(), "?from=ann@acme.example"), 422, "invalid_field")


@pytest.mark.row("I2")
@pytest.mark.parametrize(
    "name",
    [
        "Received", "DKIM-Signature", "dkim-signature", "Return-Path", "Bcc", "From", "Sender", "To", "Subject", "Date",
        "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Authentication-Results", "ARC-Seal", "Received-SPF",
        "Resent-From",
        "X-Postbud-Tag", "X-Google-DKIM-Signature", "Feedback-ID",
    ],
)  # fmt: skip
def test_a_header_that_is_ours_to_set_is_refused(trio: Trio, name: str) -> None:
    _, _, api = trio
    said = problem(api.post(letter(headers={name: "x"})), 422, "invalid_field")
    assert said["errors"][0]["field"] == f"headers.{name}"


BAD_JSON = [
    b'{"from":"\\ud800"}', b'{"from":"\xff"}', b'{"from":"\xed\xa0\x80"}', b"[" * 100_000, b'{"a":' * 100_000,
    b'{"from":1e400}', b'{"from":' + b"1" * 5_000 + b"}", b'{"from":"a","from":"b"}',
    b'{"from":{"mailbox":"a","mailbox":"b"}}', b'{"from":NaN}', b"", b"{", b"\xef\xbb\xbf{}",
    b'{"from":"a"}{"from":"b"}', "{}".encode("utf-16"),
]  # fmt: skip


@pytest.mark.row("I3")
@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_that_can_be_read_in_two_ways_or_none_is_refused(trio: Trio, body: bytes) -> None:
    _, _, api = trio
    problem(api.post(body), 400, "invalid_json")


@pytest.mark.row("I3")
def test_a_lone_surrogate_deep_inside_is_found(trio: Trio) -> None:
    _, _, api = trio
    body = json.dumps(letter(metadata={"k": "x"}, text="fine \U0001f600")).replace('"x"', '"\\ud83d"').encode()
    problem(api.post(body), 400, "invalid_json")
    assert api.post(body.replace(b'\\ud83d"', b'\\ud83d\\ude00"')).status == 202


@pytest.mark.row("I4")
def test_a_body_that_would_grow_is_not_unpacked(trio: Trio) -> None:
    _, _, api = trio
    bomb = gzip.compress(json.dumps(letter(text="x" * 50_000_000)).encode())
    problem(api.post(bomb, Content_Encoding="gzip"), 415, "unsupported_media_type")
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""):
        answer = api.ask("POST", "/v1/messages", b"{}", Content_Type=kind)
        problem(answer, 415, "unsupported_media_type")


@pytest.mark.row("I4")
def test_a_body_over_the_limit_is_refused_by_its_word_and_by_its_octets(trio: Trio) -> None:
    _, _, api = trio
    head = b"POST /v1/messages HTTP/1.1\r\n" + HOST + AUTH + JSON
    assert b" 413 " in api.talk(head + b"Content-Length: 99999999999\r\n\r\n")
    with api.connect() as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        begun, cut = time.monotonic(), False
        while not cut and time.monotonic() - begun < 30:
            try:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            except OSError:
                cut = True
        assert cut
    problem(api.post_raw(raw_message(b"x" * 70 + b"\r\n") * 2 + b"y" * (1 << 20)), 413, "too_big")
    problem(api.post(letter(text="line\n" * 250_000)), 413, "too_big")


@pytest.mark.row("I4")
@pytest.mark.row("I9")
@pytest.mark.timeout(240)
def test_requests_that_never_end_are_ended(trio: Trio) -> None:
    """One wait for all of them: header sections that stop or trickle, and a chunked body without its end."""
    _, _, api = trio
    head = b"POST /v1/messages HTTP/1.1\r\n" + HOST + AUTH + JSON
    silent, stopped, trickling, chunked, second = (api.connect(90) for _ in range(5))
    begun = time.monotonic()
    stopped.sendall(b"POST /v1/messages HT")
    chunked.sendall(head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"to"\r\n')
    second.sendall(b"GET /v1 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b" 200 OK" in second.recv(65536)
    second.sendall(b"GET /v1 HT")
    trickling.sendall(b"GET /v1 HTTP/1.1\r\n")
    alive = True
    while alive and time.monotonic() - begun < 40:
        try:
            trickling.sendall(b"X: y\r\n")
            time.sleep(1)
        except OSError:
            alive = False
    assert not alive
    for connection in (silent, stopped, second, chunked):
        assert b" 408 " in _rest_of(connection)
        connection.close()
    trickling.close()
    assert api.post(letter()).status == 202


def _rest_of(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.row("I7")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "msg_1"}, "id"), ({"account": "acct_beta"}, "account"), ({"tenant_id": 1}, "tenant_id"),
        ({"role": "owner"}, "role"),
        ({"to": [{"mailbox": "you@dest.example", "account": "x"}]}, "to[0].account"),
        ({"attachments": [{"content": "", "path": "/etc/passwd"}]}, "attachments[0].path"),
    ],
)  # fmt: skip
def test_a_field_that_nobody_asked_for_is_refused_by_name(trio: Trio, change: dict[str, Any], field: str) -> None:
    _, _, api = trio
    said = problem(api.post(letter(**change)), 422, "unknown_field")
    assert [error["field"] for error in said["errors"]] == [field]


@pytest.mark.row("I9")
@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",  # a length, and chunks
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",  # chunks, and a length
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}{}{",
        b"Content-Length: +4\r\n\r\n{}{}",
        b"Content-Length: 4, 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"X: a\rb\r\nContent-Length: 2\r\n\r\n{}",
        b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
        b"X\n: b\r\nContent-Length: 2\r\n\r\n{}",
        b": b\r\nContent-Length: 2\r\n\r\n{}",
        b"Host: other.example\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_a_request_that_two_servers_could_read_differently_is_refused_and_what_follows_is_not_run(
    trio: Trio, more: bytes
) -> None:
    _, _, api = trio
    smuggled = b"GET /v1 HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = api.talk(b"POST /v1/messages HTTP/1.1\r\n" + HOST + AUTH + JSON + more + smuggled)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer


@pytest.mark.row("I9")
def test_a_header_section_without_measure_is_refused(trio: Trio) -> None:
    _, _, api = trio
    answer = api.talk(b"GET /v1 HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 200_000 + b"\r\n\r\n")
    assert b" 400 " in answer or answer == b""
    assert api.talk(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").startswith(b"HTTP/1.1 400 ")
    assert api.talk(b"EHLO x\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.row("I10")
@pytest.mark.parametrize("query", ["?key={}", "?api_key={}", "?access_token={}", "?x={}", "?TOKEN=other", "/{}"])
def test_a_key_in_the_address_is_refused_and_stands_in_no_log(trio: Trio, query: str) -> None:
    relay, _, api = trio
    key = KEYS["api-1"]
    said = problem(api.ask("POST", "/v1/messages" + query.format(key), b"{}", key=None), 400, "key_in_query")
    assert key not in json.dumps(said)
    escaped = query.format(key.replace("_", "%5F"))
    problem(api.ask("POST", "/v1/messages" + escaped, b"{}", key=None), 400, "key_in_query")
    assert key[8:40] not in relay.log_path.read_text()


@pytest.mark.row("G1")
@pytest.mark.row("I2")
def test_a_whole_message_hears_the_same_noes_as_over_smtp(trio: Trio) -> None:
    _, _, api = trio
    envelope = "?from=ann@acme.example&to=you@dest.example"
    for content, status, code in (
        (b"", 422, "bad_content"),
        (b"no header\r\n", 422, "bad_content"),
        (b"Subject: x\r\n\r\n", 422, "bad_content"),
        (b"From: ann@other.example\r\n\r\nx\r\n", 403, "not_allowed"),
        (b"From: ann@acme.example\r\nX-Postbud-Unknown: 1\r\n\r\nx\r\n", 422, "bad_content"),
        (b"From: ann@acme.example\r\nX: " + b"y" * 2_000 + b"\r\n\r\nx\r\n", 422, "bad_content"),
    ):
        answer = api.post_raw(content, envelope)
        assert (answer.status, answer.json["code"]) == (status, code), (content[:60], answer)


def test_fields_that_contradict_each_other_are_all_named(trio: Trio) -> None:
    _, _, api = trio
    said = problem(api.post(letter(raw=base64_of(raw_message()), html="x")), 422, "invalid_field")
    assert [error["field"] for error in said["errors"]] == ["subject", "text", "html"]
    said = problem(api.post(letter(text=None)), 422, "invalid_field")
    assert said["errors"] == [{"field": "text", "message": "is missing, and so is html"}]
    said = problem(api.post(letter(to=[])), 422, "invalid_field")
    assert said["errors"][0]["field"] == "to"
    said = problem(api.post(letter(**{"from": None})), 422, "invalid_field")
    assert said["errors"] == [{"field": "from", "message": "is missing"}]
    said = problem(api.post(letter(send_at="2099-01-01T00:00:00Z", attachments=[{"content": "*"}])), 422, "invalid_field")
    assert said["errors"][0]["field"] == "attachments[0].content"
    said = problem(api.post(letter(send_at="2099-01-01T00:00:00Z")), 422, "invalid_field")
    assert said["errors"][0]["field"] == "send_at"
    said = problem(api.post(letter(to=[f"u{n}@dest.example" for n in range(1001)])), 422, "too_many_recipients")
    assert said["errors"][0]["field"] == "to[1000]"


def test_clients_that_go_away_leave_nothing_behind(trio: Trio) -> None:
    relay, _, api = trio
    head = b"POST /v1/messages?from=ann@acme.example&to=you@dest.example HTTP/1.1\r\n" + HOST + AUTH
    for _ in range(20):
        with api.connect() as connection:
            connection.sendall(head + b"Content-Type: message/rfc822\r\nContent-Length: 500000\r\n\r\n" + raw_message() * 3000)
    assert api.post(letter()).status == 202
    incoming = relay.data / "spool" / "worker-0" / "incoming"
    deadline = time.monotonic() + 10
    while list(incoming.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(incoming.iterdir()) == []
    assert "postbud_api_faults_total 0.0" in relay.metrics()
