"""A client of the sending API for tests: one relay with an API, and requests to it by the standard library."""

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.system.directory import KEYS, Settings
from tests.system.harness import Recorder, Relay


@dataclass
class Answer:
    """What the API said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def letter(**more: Any) -> dict[str, Any]:
    """Give a message that is fine, with what a test changes of it; None takes a field away."""
    fields = {"from": "Ann <ann@acme.example>", "to": ["you@dest.example"], "subject": "Hello", "text": "Hi there\n"} | more
    return {name: value for name, value in fields.items() if value is not None}


def raw_message(body: bytes = b"Hi\r\n") -> bytes:
    """Give a whole message that is fine."""
    return b"From: ann@acme.example\r\nTo: you@dest.example\r\nSubject: Raw\r\n\r\n" + body


class Api:
    """One relay's API."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.port = port
        self.tls = tls

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """Open a plain connection, for what no library sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = "api-1",
        timeout: float = 60.0,
        **headers: str,
    ) -> Answer:
        """Send one request. `headers` have underscores for hyphens."""
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            all_headers["Authorization"] = f"Bearer {KEYS.get(key, key)}"
        try:
            connection.request(method, path, body, all_headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, message: Any, *, key: str | None = "api-1", **headers: str) -> Answer:
        """Send a message as JSON; octets go as they are."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.ask("POST", "/v1/messages", body, key=key, Content_Type="application/json", **headers)

    def post_raw(self, octets: bytes, query: str = "?from=ann@acme.example&to=you@dest.example", **headers: str) -> Answer:
        """Send a whole message."""
        return self.ask("POST", f"/v1/messages{query}", octets, Content_Type="message/rfc822", **headers)

    def get(self, path: str, *, key: str | None = "api-1") -> Answer:
        """Ask for something."""
        return self.ask("GET", path, key=key)

    def delete(self, path: str, *, key: str | None = "api-1") -> Answer:
        """Take something back."""
        return self.ask("DELETE", path, key=key)

    def talk(self, octets: bytes, timeout: float = 30.0) -> bytes:
        """Send octets as they are; give all that comes until the other side closes."""
        with self.connect(timeout) as connection:
            connection.sendall(octets)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def answers(self) -> bool:
        """Tell whether it answers."""
        try:
            return self.get("/v1", key=None).status == 200
        except OSError:
            return False


@contextmanager
def serving(
    folder: Path, settings: Settings | None = None, *, api: str = "", start: bool = True
) -> Iterator[tuple[Relay, Recorder, Api]]:
    """Run a sink and a relay that has an API and routes everything to the sink. `api` holds further lines of `[api]`."""
    sink = Recorder(folder)
    sink.start()
    settings = settings or Settings()
    settings.next_hop = settings.next_hop or sink.next_hop
    port = free_port()
    settings.extra += f'\n[api]\naddress = "127.0.0.1:{port}"\n{api}\n'
    relay = Relay(folder, settings)
    client = Api(port, tls="tls = true" in api)
    try:
        if start:
            relay.start()
        yield relay, sink, client
    finally:
        relay.close()
        sink.close()


def base64_of(octets: bytes) -> str:
    """Give octets in base64."""
    return base64.b64encode(octets).decode()


def content_at(sink: Recorder, message_id: str, seconds: float = 30.0) -> bytes:
    """Give the content that the sink got of a message that our relay accepted under an id."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for record in sink.received():
            content = base64.b64decode(record["content"])
            if f"id {message_id};".encode() in content.replace(b"\r\n", b" ") or message_id.encode() in content:
                return content
        time.sleep(0.1)
    raise TimeoutError(f"{message_id} did not come; {len(sink.received())} others did")
