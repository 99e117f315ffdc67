"""Speaks a dialogue script to a server and says where the server differs.

Reads while it sends, so that a server that answers early and closes is heard. Knows nothing of the server but its ports.
"""

import base64
import ipaddress
import re
import select
import socket
import ssl
import struct
import time
import uuid
import zlib
from dataclasses import dataclass, field

from tests.dialog.script import Script, Step, literal
from tests.system.smtp import client_context, plain

REPLY_SECONDS = 20.0
_VARIABLE = re.compile(r"\$\{(ID|N|PLAIN|B64)(?::([^}]*))?\}")
_REPLY_LINE = re.compile(r"\d{3}(?:[ \-].*)?", re.DOTALL)


class DifferenceError(AssertionError):
    """The server did something else than the script says."""


@dataclass(frozen=True)
class Target:
    """Where a server listens: host, and port by listener name."""

    host: str
    ports: dict[str, int]

    def port_of(self, listener: str) -> int | None:
        """Give the port of a listener; None when the server has none."""
        return self.ports.get(listener)


@dataclass
class Connection:
    """Octets in and out, in clear or TLS."""

    target: Target
    port: int
    source: str | None
    implicit_tls: bool = False
    segment: int = 0
    buffer: bytes = b""
    ended: bool = False
    channel: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        source = (self.source, 0) if self.source else None
        self.channel = socket.create_connection((self.target.host, self.port), REPLY_SECONDS, source_address=source)
        self.channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.implicit_tls:
            self.channel = client_context().wrap_socket(self.channel)

    def send(self, octets: bytes) -> None:
        """Send all, reading what comes meanwhile; a connection that ends under it is noted, not raised."""
        size = self.segment or 65536
        deadline = time.monotonic() + REPLY_SECONDS * 3
        at = 0
        while at < len(octets) and not self.ended:
            readable, writable, _ = select.select([self.channel], [self.channel], [], 1.0)
            if readable:
                self._receive(0.0)
            if writable and not self.ended:
                try:
                    self.channel.settimeout(REPLY_SECONDS)
                    at += self.channel.send(octets[at : at + size])
                except OSError:
                    self._rest_of_input()
                if self.segment:
                    time.sleep(0.0005)
            if time.monotonic() > deadline:
                raise DifferenceError(f"the server took {at} of {len(octets)} octets and no more")

    def _rest_of_input(self) -> None:
        while not self.ended:
            self._receive(0.5)

    def _receive(self, seconds: float) -> bool:
        """Take what is there; False when nothing came in time."""
        decrypted = isinstance(self.channel, ssl.SSLSocket) and self.channel.pending()
        if not decrypted and not select.select([self.channel], [], [], seconds)[0]:
            return False
        try:
            self.channel.settimeout(0)
            chunk = self.channel.recv(65536)
        except (ssl.SSLWantReadError, BlockingIOError):
            return False  # a TLS record without octets for us, such as a session ticket
        except (OSError, ValueError):
            chunk = b""
        self.buffer += chunk
        self.ended = not chunk
        return True

    def reply(self) -> tuple[int, list[str]] | None:
        """Read one whole reply; None when the connection ends before."""
        deadline = time.monotonic() + REPLY_SECONDS
        lines: list[str] = []
        while True:
            while b"\r\n" not in self.buffer:
                if self.ended:
                    return None
                if not self._receive(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise DifferenceError(f"no reply within {REPLY_SECONDS} s; so far {lines} {self.buffer[:200]!r}")
            raw, _, self.buffer = self.buffer.partition(b"\r\n")
            line = raw.decode("utf-8", "backslashreplace")
            if not _REPLY_LINE.fullmatch(line) or len(raw) > 510 or b"\n" in raw or b"\r" in raw:
                raise DifferenceError(f"no reply line: {line[:200]!r}")
            lines.append(line)
            if line[3:4] != "-":
                return int(line[:3]), lines

    def wait_end(self, seconds: float) -> bool:
        """Tell whether the peer ends it in time."""
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            self._receive(max(0.0, deadline - time.monotonic()))
        return self.ended

    def handshake(self) -> None:
        """Begin TLS.

        Raises:
            OSError: It failed.
        """
        self.channel.settimeout(REPLY_SECONDS)
        self.channel = client_context().wrap_socket(self.channel)

    def reset(self) -> None:
        """End it by RST."""
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.channel.close()

    def close(self) -> None:
        """End it."""
        self.channel.close()


class Dialogue:
    """One run of one script."""

    def __init__(self, script: Script, target: Target) -> None:
        self.id = uuid.uuid4().hex[:16]
        self._script, self._target = script, target
        self._listener = script.header.get("listener", "cleartext")
        self._last: tuple[int, list[str]] = (0, [])
        self._count = 0
        self._step: Step | None = None
        self._connection = self._connect()

    def _connect(self) -> Connection:
        port = self._target.port_of(self._listener)
        if port is None:
            raise LookupError(f"the server has no listener `{self._listener}`")
        # an address of its own on loopback for each script: limits by IP address must not cross from one to another
        source = None
        if self._listener != "network" and ipaddress.ip_address(self._target.host).is_loopback and ":" not in self._target.host:
            number = zlib.crc32(self._script.path.name.encode() + self.id.encode())
            source = f"127.{1 + number % 200}.{number // 200 % 250}.{1 + number // 50000 % 250}"
        return Connection(self._target, port, source, implicit_tls=self._listener == "implicit" and self._wants_tls())

    def _wants_tls(self) -> bool:
        return self._script.header.get("tls", "yes") == "yes"

    def run(self) -> None:
        """Speak it all.

        Raises:
            DifferenceError: The server does something else; the text names script and line.
        """
        try:
            if "login" in self._script.header:
                self._login(self._script.header["login"])
            for step in self._script.steps:
                self._do(step)
        except (DifferenceError, OSError, TimeoutError) as error:
            where = (
                f"{self._script.path.name}:{self._step.line}: {self._step.word} {self._step.text}" if self._step else "login"
            )
            raise DifferenceError(f"{where}\n  {type(error).__name__}: {error}") from error
        finally:
            self._connection.close()

    def _login(self, name: str) -> None:
        self._expect("220")
        self._say("EHLO client.example", "250")
        if self._listener == "submission":
            self._say("STARTTLS", "220")
            self._connection.handshake()
            self._say("EHLO client.example", "250")
        self._say(f"AUTH PLAIN {plain(name)}", "235")

    def _say(self, line: str, expected: str) -> None:
        self._connection.send(line.encode() + b"\r\n")
        self._expect(expected)

    def _fill(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] == "ID":
                return self.id
            if found[1] == "N":
                return str(self._count)
            if found[1] == "PLAIN":
                return plain(found[2])
            return base64.b64encode(literal(f'"{found[2]}"')).decode()

        return _VARIABLE.sub(value, text)

    def _do(self, step: Step) -> None:
        self._step = step
        text = self._fill(step.text)
        match step.word:
            case "C":
                self._connection.send(text.encode() + b"\r\n")
            case "B":
                self._connection.send(literal(text))
            case "S":
                self._expect(text)
            case "S?":
                self._expect(text, may_end=True)
            case "S+":
                if not any(re.search(text, line) for line in self._last[1]):
                    raise DifferenceError(f"no line of {self._last[1]} matches {text!r}")
            case "S-":
                if any(re.search(text, line) for line in self._last[1]):
                    raise DifferenceError(f"a line of {self._last[1]} matches {text!r}")
            case "T":
                self._transport(text)
            case _:
                self._other(step, text)

    def _other(self, step: Step, text: str) -> None:
        match step.word:
            case "close":
                if not self._connection.wait_end(REPLY_SECONDS):
                    raise DifferenceError("the server did not close")
                if self._connection.buffer:
                    raise DifferenceError(f"the server said more before it closed: {self._connection.buffer[:300]!r}")
            case "silent":
                self._connection.wait_end(float(text))
                if self._connection.buffer:
                    raise DifferenceError(f"the server spoke: {self._connection.buffer[:300]!r}")
            case "wait":
                time.sleep(float(text))
            case "hello":
                self._expect("220")
                self._say(f"EHLO {text or 'client.example'}", "250")
            case "flood":
                self._flood(*text.split(" ", 3))
            case "repeat":
                for self._count in range(1, int(text) + 1):
                    for inner in step.steps:
                        self._do(inner)

    def _flood(self, count: str, code: str, last: str, line: str) -> None:
        for _ in range(int(count)):
            self._connection.send(line.encode() + b"\r\n")
            reply = self._connection.reply()
            if reply is None:
                raise DifferenceError(f"closed without {last}")
            if matches(reply, last):
                return
            if not matches(reply, code):
                raise DifferenceError(f"expected {code} or {last}, got {reply[1]}")
        raise DifferenceError(f"{count} times {code} and never {last}")

    def _expect(self, expected: str, *, may_end: bool = False) -> None:
        reply = self._connection.reply()
        if reply is None:
            if may_end:
                return
            raise DifferenceError(f"expected {expected}, the connection ended")
        self._last = reply
        if not matches(reply, expected):
            raise DifferenceError(f"expected {expected}, got {reply[1]}")

    def _transport(self, text: str) -> None:
        word, _, argument = text.partition(" ")
        match word:
            case "starttls":
                self._connection.handshake()
            case "refused":
                self._injection_refused()
            case "broken":
                try:
                    self._connection.handshake()
                except OSError:
                    return
                raise DifferenceError("the TLS handshake succeeded")
            case "connect":
                self._connection.close()
                self._connection = self._connect()
            case "reset":
                self._connection.reset()
            case "fin":
                self._connection.channel.shutdown(socket.SHUT_WR)
            case "segment":
                self._connection.segment = int(argument)
            case _:
                raise DifferenceError(f"unknown transport step {word!r}")

    def _injection_refused(self) -> None:
        reply = self._connection.reply()
        if reply is None:
            return
        if reply[0] == 220:
            try:
                self._connection.handshake()
            except OSError:
                return
            raise DifferenceError("the handshake succeeded with octets behind STARTTLS")
        if not self._connection.wait_end(REPLY_SECONDS):
            raise DifferenceError(f"answered {reply[1]} and did not close")


def matches(reply: tuple[int, list[str]], expected: str) -> bool:
    """Tell whether a reply is one of the alternatives."""
    code, first = str(reply[0]), reply[1][0][4:]
    for alternative in expected.split("|"):
        wanted, _, text = alternative.strip().partition(" ")
        if code.startswith(wanted.rstrip("yz")) and first.startswith(text.strip()):
            return True
    return False
