"""The dialogue scripts of two other servers, spoken to ours: the classes of replies are compared, the texts are theirs.

Read from the shared test data; nothing of it is copied here. Paths get angle brackets and fully qualified domains on the way,
without which ours takes none (rows E1, E6). Where a script expects what the standard or our own rows forbid, the difference
is named in `DIFFERENCES`.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from postbud.smtpd.settings import Role, TlsMode
from tests.shared import SHARED_DATA, shared_data
from tests.system.recording_gate import Server, serving
from tests.system.smtp import Wire

CHASQUID = "smtp-dialogues/chasquid/test/t-12-minor_dialogs"
JAMES = "smtp-dialogues/james-mpt/mpt/impl/smtp/core/src/main/resources/org/apache/james/smtp/scripts"

DIFFERENCES = {  # (script, what it expects) -> (what ours says, why)
    ("bad_data", "554"): ("2", "what a header section must be is the gate's to say, and this gate takes all"),
    ("message_too_big", "221"): ("0", "after an over-size content the session is closed (row A10)"),
    ("wrong_proto", "502"): ("4", "row D4 says 421"),
    ("auth_too_many_failures", "421"): ("5", "malformed responses are no guesses at a secret"),
    ("starttls_with_injection", "451"): ("5", "row C1: a protocol error, 554"),
    ("authplain", "334"): ("5", "AUTH before EHLO, which RFC 4954 forbids"),
    ("authplain", "235"): ("5", "AUTH before EHLO, which RFC 4954 forbids"),
}


def scripts(folder: str, suffix: str) -> list[str]:
    return sorted(path.stem for path in (SHARED_DATA / folder).glob(f"*{suffix}")) or ["missing"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with a gate that wants AUTH or does not; names and secrets are the scripts' own."""
    with ExitStack() as stack:

        def start(*, requires_auth: bool, **listener: object) -> Server:
            folder = tmp_path / str(requires_auth)
            folder.mkdir()
            server = stack.enter_context(
                serving(folder, requires_auth=requires_auth, banner_delay_seconds=0.0, **listener)  # type: ignore[arg-type]
            )
            server.gate.secrets |= {"user@testserver": b"secretpassword", "bob@bounce.example": b"secret"}
            return server

        yield start


def adapt(text: str) -> str:
    """Give paths their brackets, and domains that ours takes."""
    text = re.sub(r"(?i)^((?:MAIL FROM|RCPT TO):) ?([^<\s]+)$", r"\1<\2>", text)
    text = re.sub(r"@(?:testserver|mydomain\.tld)\b", "@bounce.example", text)
    return text.replace("@b>", "@b.example>")


def compare(script: str, expected: str, wire: Wire) -> None:
    code = expected.strip()[:3]
    if not code.isdigit():
        code = "250"  # `HELP` and the like: some line of the reply to EHLO
    said = str(wire.reply().code)[0]
    assert said == DIFFERENCES.get((script, code), (code[0], ""))[0], (expected, said)


@pytest.mark.row("A1", "A9", "A10", "D4", "E2", "F1")
@pytest.mark.parametrize("name", scripts(CHASQUID, ".cmy"))
def test_scripts_of_chasquid(name: str, serve: Callable[..., Server]) -> None:
    text = (shared_data(CHASQUID) / f"{name}.cmy").read_text()
    open_one, with_auth = serve(requires_auth=False, auth_without_tls=False), serve(requires_auth=True, tls=TlsMode.IMPLICIT)
    wire: Wire | None = None
    for line in text.splitlines():
        step = re.fullmatch(r"c (tcp_connect|tls_connect|close|->|~>|<-|<~|<\.\.\.) ?(.*)", line)
        if step is None:
            continue
        word, rest = step.groups()
        if word == "tcp_connect":
            wire = open_one.client()
        elif word == "tls_connect":
            wire = with_auth.client(implicit_tls=True)
        elif wire is None or word == "close":
            wire = None
        elif word == "->":
            wire.send(adapt(rest).encode() + b"\r\n")
        elif word == "~>":
            wire.send(_octets(ast.parse(rest, mode="eval").body))
        else:
            compare(name, rest, wire)


def _octets(node: ast.expr) -> bytes:
    """Compute what a script writes: strings, sums and products."""
    if isinstance(node, ast.Constant):
        return str(node.value).encode()
    assert isinstance(node, ast.BinOp)
    if isinstance(node.op, ast.Add):
        return operator.add(_octets(node.left), _octets(node.right))
    return _octets(node.left) * int(_octets(node.right))


@pytest.mark.row("C1", "C3")
@pytest.mark.parametrize("name", scripts(JAMES, ".test"))
def test_scripts_of_james(name: str, serve: Callable[..., Server]) -> None:
    text = (shared_data(JAMES) / f"{name}.test").read_text()
    lines = [line[3:] if line[2:3] == " " else line[2:] for line in text.splitlines() if line.startswith(("C:", "S:"))]
    words = [line[0] for line in text.splitlines() if line.startswith(("C:", "S:"))]
    server = serve(requires_auth="AUTH LOGIN\n" in text, auth_without_tls=True, role=Role.SUBMISSION)
    wire = server.client()
    said: list[str] = []
    for index, (word, line) in enumerate(zip(words, lines, strict=True)):
        if word == "C":
            wire.send(adapt(_login(line)).replace("\\r\\n", "\r\n").encode() + b"\r\n")
            continue
        following = lines[index + 1] if words[index + 1 : index + 2] == ["S"] else ""
        if not re.match(r"\d{3}-", line) and not re.match(line[:3] + "-", following):
            said.append(line)
            compare(name, line, wire)
    assert said


def _login(line: str) -> str:
    """Name the user as our gate knows it."""
    return line.replace("Ym9iQG15ZG9tYWluLnRsZA==", "Ym9iQGJvdW5jZS5leGFtcGxl")
