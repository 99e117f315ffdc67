"""Dialogues of other projects, spoken to our relay and compared by the first digit of each reply.

chasquid's `.cmy` and Apache James' `.test` scripts. They were written for servers that take mail for their own users, so paths
are rewritten to what a credential of ours may use, the credential signs in first where the script does not, and exact texts
and codes are reduced to their class. Where we differ on purpose the case is in `DIFFERS`, with the reason.
"""

import ast
import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dialog.driver import Connection, DifferenceError, Target
from tests.shared import SHARED_DATA
from tests.system.directory import SECRETS
from tests.system.harness import Recorder, Relay
from tests.system.smtp import plain

CHASQUID = SHARED_DATA / "smtp-dialogues" / "chasquid" / "test" / "t-12-minor_dialogs"
JAMES = SHARED_DATA / "smtp-dialogues" / "james-mpt"

SKIPPED = {
    "wrong_proto.cmy": "each of its three connections is our own D4 script; it leaves them open where we close",
    "authplain.test": "AUTH before EHLO, which RFC 4954 s4 does not allow",
    "data_with_starttls.test": "pipelines behind EHLO, which RFC 2920 s3.1 does not allow",
    "rcpt_with_starttls.test": "pipelines behind EHLO, which RFC 2920 s3.1 does not allow",
    "data_starts_with_starttls.test": "pipelines behind EHLO, which RFC 2920 s3.1 does not allow",
    "starttls_with_injection.test": "its injected line is literal text, the real one is our own C1 script",
    "helo.test": "pipelines behind EHLO, which RFC 2920 s3.1 does not allow",
}
DIFFERS = {
    ("empty_helo.cmy", "HELO"): "5",
    ("message_too_big.cmy", "QUIT"): "end",  # ours closes after too much
    ("auth_too_many_failures.cmy", "AUTH PLAIN something"): "[54]",  # ours counts failures of the secret, not of base64
}
_SOURCE = iter(range(1, 250))


def _scripts() -> list[Path]:
    return sorted(CHASQUID.glob("*.cmy")) + sorted(JAMES.rglob("*.test"))


def _ours(line: bytes) -> bytes:
    """Rewrite paths and secrets to what our test relay knows."""
    line = re.sub(rb"(?i)(MAIL FROM: ?)<>", rb"\1<printer@acme.example>", line)
    line = re.sub(
        rb"(?i)(MAIL FROM: ?)<(?:test@testy\.com|a@b|bob@mydomain\.tld|matthieu@yopmail\.com)>",
        rb"\1<printer@acme.example>",
        line,
    )
    line = re.sub(rb"(?i)RCPT TO: user@testserver", rb"RCPT TO:<user@dest.example>", line)
    line = line.replace(b"@testserver>", b"@dest.example>").replace(b"somewhere@horns.com", b"printer@acme.example")
    line = line.replace(b"MAIL FROM: ", b"MAIL FROM:")
    secrets = {
        b"Ym9iQG15ZG9tYWluLnRsZA==": base64.b64encode(b"printer-1"),
        b"c2VjcmV0": base64.b64encode(SECRETS["printer-1"].encode()),
        b"dXNlckB0ZXN0c2VydmVyAHVzZXJAdGVzdHNlcnZlcgBzZWNyZXRwYXNzd29yZA==": plain("printer-1").encode(),
    }
    return secrets.get(line.rstrip(b"\r\n"), line.rstrip(b"\r\n")) + line[len(line.rstrip(b"\r\n")) :]


class Foreign:
    """One run of one script."""

    def __init__(self, relay: Relay, path: Path) -> None:
        self.relay, self.name = relay, path.name
        self.signs_in_itself = "AUTH " in path.read_text(encoding="utf-8").replace("250-AUTH", "")
        self.connection: Connection | None = None
        self.last = ""

    def connect(self, *, implicit: bool) -> None:
        if self.connection is not None:
            self.connection.close()
        clear = "submission" if self.name == "auth_not_tls.cmy" else "cleartext"
        port = self.relay.ports["implicit" if implicit else clear]
        source = f"127.0.200.{next(_SOURCE)}"
        self.connection = Connection(Target("127.0.0.1", {}), port, source, implicit_tls=implicit)

    def say(self, line: bytes) -> None:
        assert self.connection is not None
        self.last = line.decode("utf-8", "replace").strip()
        self.connection.send(_ours(line))

    def expect(self, digit: str) -> None:
        assert self.connection is not None
        reply = self.connection.reply()
        wanted = DIFFERS.get((self.name, self.last), digit)
        if reply is None:
            if wanted in ("4", "5", "end"):
                return
            raise DifferenceError(f"{self.name}: {self.last!r}: the connection ended instead of {digit}yz")
        if not re.match(wanted, str(reply[0])):
            raise DifferenceError(f"{self.name}: {self.last!r}: expected {wanted}yz, got {reply[1]}")
        if self.last.upper().startswith(("EHLO ", "HELO ")) and reply[0] == 250 and not self.signs_in_itself:
            # those servers let strangers in; ours wants to know who it is
            if self.last.upper().startswith("HELO "):
                self.connection.send(b"EHLO localhost\r\n")
                self.connection.reply()
            self.connection.send(f"AUTH PLAIN {plain('printer-1')}\r\n".encode())
            if (answer := self.connection.reply()) is None or answer[0] != 235:
                raise DifferenceError(f"{self.name}: AUTH: {answer}")


def _chasquid(path: Path, run: Foreign) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word != "c":
            continue
        verb, _, text = rest.partition(" ")
        if verb in ("tcp_connect", "tls_connect"):
            run.connect(implicit=verb == "tls_connect")
        elif verb == "->":
            run.say(text.encode() + b"\r\n")
        elif verb == "~>":
            run.say(_expression(text))
        elif verb in ("<-", "<~", "<..."):
            run.expect(text[0])


def _expression(text: str) -> bytes:
    """Evaluate `'…'`, `'…' * N` and `('…' * N + '…') * M`, which is all that the scripts use."""

    def value(node: ast.expr) -> str | int:
        match node:
            case ast.Constant(value=str() | int() as constant):
                return constant
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)  # type: ignore[operator]  # text times number
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)  # type: ignore[operator]  # text plus text
        raise ValueError(ast.dump(node))

    return str(value(ast.parse(text, mode="eval").body)).encode()


def _james(path: Path, run: Foreign) -> None:
    run.connect(implicit=False)
    several = False
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, _, text = line.partition(": ")
        if kind == "C":
            run.say(text.encode() + b"\r\n")
            several = False
        elif kind == "S" and (found := re.match(r"(\d)\d\d(-?)", text)):
            if not several:
                run.expect(found[1])
            several = found[2] == "-" or text.endswith(".*")


@pytest.fixture
def foreign(dialogue_relay: tuple[Relay, Recorder], request: pytest.FixtureRequest) -> Iterator[Foreign]:
    run = Foreign(dialogue_relay[0], request.param)
    yield run
    if run.connection is not None:
        run.connection.close()


@pytest.mark.skipif(not _scripts(), reason="no ../shared/data/smtp-dialogues beside the repository")
@pytest.mark.parametrize(
    ("path", "foreign"), [(path, path) for path in _scripts()], indirect=["foreign"], ids=lambda path: path.name
)
def test_a_dialogue_of_another_project(path: Path, foreign: Foreign) -> None:
    if path.name in SKIPPED:
        pytest.skip(SKIPPED[path.name])
    (_chasquid if path.suffix == ".cmy" else _james)(path, foreign)
