"""A raw SMTP client for tests: says exactly what it is told, octet by octet, and reads whole replies."""

import base64
import hashlib
import re
import socket
import ssl
import time
import uuid
from dataclasses import dataclass

from tests.system.directory import SECRETS

_TEST_ID = re.compile(rb"^X-Test-Id:[ \t]*([^\r\n]*)\r\n", re.MULTILINE | re.IGNORECASE)


def content_digest(content: bytes) -> tuple[str, str]:
    """Give the X-Test-Id of a content and the SHA-256 of it from that field on ("" and of the whole without one)."""
    found = _TEST_ID.search(content, 0, content.find(b"\r\n\r\n") + 2 if b"\r\n\r\n" in content else len(content))
    if found is None:
        return "", hashlib.sha256(content).hexdigest()
    return found[1].decode("ascii", "replace").strip(), hashlib.sha256(memoryview(content)[found.start() :]).hexdigest()


def new_test_id() -> str:
    """Give an id that no other test has."""
    return uuid.uuid4().hex


def make_content(
    test_id: str, size: int = 1024, sender: str = "printer@acme.example", recipient: str = "someone@dest.example"
) -> bytes:
    """Give a correct content of about `size` octets that begins with its X-Test-Id."""
    head = (
        f"X-Test-Id: {test_id}\r\nFrom: Printer <{sender}>\r\nTo: <{recipient}>\r\nSubject: Scan {test_id}\r\n"
        f"Date: Tue, 24 Nov 2026 21:00:00 +0000\r\nMessage-ID: <{test_id}@acme.example>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    ).encode()
    line = b"The quick brown fox jumps over the lazy dog 0123456789 and does it again.\r\n"
    lines = max(1, (size - len(head)) // len(line))
    return head + line * lines + b".a line that begins with a dot\r\n"


def stuff(content: bytes) -> bytes:
    """Give the wire form after 354: dot-stuffed, with the final dot."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n"


def client_context(**more: object) -> ssl.SSLContext:
    """A context that takes any certificate: a relay makes its own at first start."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Reply:
    """One reply: code and lines without it. Code 0: the connection ended."""

    code: int
    lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """First line."""
        return self.lines[0] if self.lines else ""

    @property
    def enhanced(self) -> str:
        """The first line's first word."""
        return self.text.partition(" ")[0]


class Wire:
    """One connection."""

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        source: str | None = None,
        implicit_tls: bool = False,
        timeout: float = 20.0,
    ) -> None:
        self.socket: socket.socket = socket.create_connection(
            (host, port), timeout, source_address=(source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if implicit_tls:
            self.socket = client_context().wrap_socket(self.socket)
        self.buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Send raw octets."""
        self.socket.sendall(octets)

    def read_line(self) -> bytes | None:
        """Read a line without its CRLF; None: the connection ended."""
        while b"\r\n" not in self.buffer:
            try:
                chunk = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                chunk = b""
            if not chunk:
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def reply(self) -> Reply:
        """Read one whole reply."""
        lines: list[str] = []
        while True:
            line = self.read_line()
            if line is None:
                return Reply(0, tuple(lines))
            text = line.decode("utf-8", "backslashreplace")
            if not re.fullmatch(r"\d{3}(?:[ \-].*)?", text):
                raise AssertionError(f"no reply line: {text!r}")
            lines.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), tuple(lines))

    def say(self, line: str) -> Reply:
        """Send a command, read its reply."""
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def expect(self, line: str, code: int) -> Reply:
        """Send a command; its reply must have this code."""
        reply = self.say(line)
        assert reply.code == code, f"{line!r} -> {reply}"
        return reply

    def starttls(self) -> None:
        """STARTTLS and handshake."""
        self.expect("STARTTLS", 220)
        self.socket = client_context().wrap_socket(self.socket)

    def hello(self, name: str = "client.example") -> Reply:
        """Read the greeting, say EHLO."""
        greeting = self.reply()
        assert greeting.code == 220, greeting
        return self.expect(f"EHLO {name}", 250)

    def auth(self, username: str = "printer-1") -> Reply:
        """AUTH PLAIN with a test credential's secret."""
        return self.say(f"AUTH PLAIN {plain(username)}")

    def data(self, content: bytes) -> Reply:
        """DATA, content, final dot; give the last reply."""
        reply = self.say("DATA")
        if reply.code != 354:
            return reply
        self.send(stuff(content))
        return self.reply()

    def ended(self, seconds: float = 10.0) -> bool:
        """Tell whether the peer closes the connection (whatever it says before)."""
        deadline = time.monotonic() + seconds
        self.socket.settimeout(seconds)
        try:
            while time.monotonic() < deadline:
                if not self.socket.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False


def plain(username: str, secret: str | None = None, authzid: str = "") -> str:
    """Give the initial response of AUTH PLAIN, base64."""
    return base64.b64encode(f"{authzid}\0{username}\0{secret or SECRETS[username]}".encode()).decode()


def submit(
    port: int,
    content: bytes,
    recipients: list[str],
    *,
    username: str | None = "printer-1",
    sender: str = "printer@acme.example",
    mail_parameters: str = "",
    rcpt_parameters: str = "",
    source: str | None = None,
) -> Reply:
    """Submit one message on a cleartext listener; give the reply to the final dot or to the first command that failed."""
    with Wire(port, source=source) as wire:
        wire.hello()
        if username is not None:
            reply = wire.auth(username)
            if reply.code != 235:
                return reply
        reply = wire.say(f"MAIL FROM:<{sender}>{mail_parameters}")
        if reply.code != 250:
            return reply
        for recipient in recipients:
            reply = wire.say(f"RCPT TO:<{recipient}>{rcpt_parameters}")
            if reply.code != 250:
                return reply
        reply = wire.data(content)
        wire.send(b"QUIT\r\n")
        return reply


def queued_id(reply: Reply) -> str:
    """Give the message id of a 250 to the final dot."""
    found = re.search(r"queued as (\S+)", reply.text)
    assert reply.code == 250, reply
    assert found, reply
    return found[1]
