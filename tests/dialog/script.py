r"""The format of a dialogue script, and its parser.

A script is a text file (`*.dlg`): header lines `key: value`, an empty line, then steps, one a line. `#` begins a comment line.

| header key | meaning |
|---|---|
| `row` | rows of the specification, separated by spaces |
| `title` | one sentence: what is shown |
| `listener` | which port: `cleartext` (default), `submission` (STARTTLS), `implicit`, `network`, `inbound`, `proxy` |
| `bounce_domain` | `no`: the relay under test has none, so reverse-paths are the account's own |
| `login` | a credential: greeting, EHLO, (STARTTLS, EHLO,) AUTH PLAIN are said before the first step |
| `delivers` | `name=count …`: how many messages must arrive for `name.${ID}@dest.example` |
| `body` | a literal: the body that must arrive for the first name of `delivers` |

| step | meaning |
|---|---|
| `C: LINE` | send the line and CRLF |
| `B: LITERAL …` | send octets as they are: string literals with Python's escapes, each with an optional `* COUNT`, joined |
| `S: REPLY` | read one whole reply: code (`250`, `5yz`), optional beginning of text (`5.7.1`); ` \| ` between alternatives |
| `S?: REPLY` | the same, but the connection may have ended instead (a reset can swallow the last reply) |
| `S+: REGEX`, `S-: REGEX` | some, or no, line of the last reply matches |
| `close` | the peer ends the connection, saying nothing more |
| `silent SECONDS` | the peer says nothing for so long |
| `wait SECONDS` | do nothing |
| `hello NAME` | read the greeting, say EHLO |
| `flood COUNT CODE LAST LINE` | say LINE up to COUNT times, each answered CODE, until LAST is answered |
| `repeat COUNT` … `end` | the steps between, COUNT times; `${N}` counts from 1 |
| `T: starttls` | do the TLS handshake |
| `T: refused` | STARTTLS was sent with octets behind it: no 220, or the handshake fails; nothing is answered inside TLS |
| `T: broken` | a TLS handshake on this connection fails or the connection ends |
| `T: connect` | close, connect again |
| `T: reset`, `T: fin` | end our side by RST, or by FIN |
| `T: segment N` | from here send N octets a segment |

`${ID}` is new for each run of a script; `${PLAIN:name}` is the initial response of AUTH PLAIN for a test credential;
`${B64:text}` is base64 of the text with its escapes.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')(?:\s*\*\s*(\d+))?')
_STEP = re.compile(r"(C|B|S\?|S\+|S-|S|T):(?: (.*)|$)|(close|silent|wait|hello|flood|repeat|end)\b ?(.*)")


class ScriptError(ValueError):
    """A script is malformed; names file and line."""


@dataclass(frozen=True)
class Step:
    """One line."""

    line: int
    word: str
    text: str
    steps: tuple["Step", ...] = ()


@dataclass(frozen=True)
class Script:
    """A whole file."""

    path: Path
    header: dict[str, str]
    steps: tuple[Step, ...]
    rows: tuple[str, ...] = field(default=())

    @property
    def delivers(self) -> dict[str, int]:
        """Names and counts that must arrive."""
        pairs = (word.partition("=") for word in self.header.get("delivers", "").split())
        return {name: int(count) for name, _, count in pairs}


def literal(text: str) -> bytes:
    """Give the octets of `"literal" * COUNT "literal" …`.

    Raises:
        ValueError: Not of that form.
    """
    octets, at = b"", 0
    text = text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"no literal at {text[at:]!r}")
        value = ast.literal_eval("b" + found[1]) if found[1].isascii() else ast.literal_eval(found[1]).encode()
        octets += value * int(found[2] or 1)
        at = found.end()
    return octets


def parse(path: Path) -> Script:
    """Read a script.

    Raises:
        ScriptError: It is malformed.
    """
    header: dict[str, str] = {}
    stack: list[list[Step]] = [[]]
    opened: list[Step] = []
    in_header = True
    for number, raw in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if raw.startswith("#"):
            continue
        if in_header:
            if not raw.strip():
                in_header = not header
                continue
            key, colon, value = raw.partition(":")
            if not colon or not key.isidentifier():
                raise ScriptError(f"{path.name}:{number}: no `key: value`")
            header[key] = value.strip()
            continue
        if not raw.strip():
            continue
        found = _STEP.fullmatch(raw)
        if found is None:
            raise ScriptError(f"{path.name}:{number}: no step: {raw!r}")
        step = Step(number, found[1] or found[3], (found[2] if found[1] else found[4]) or "")
        if step.word == "repeat":
            opened.append(step)
            stack.append([])
        elif step.word == "end":
            if not opened:
                raise ScriptError(f"{path.name}:{number}: `end` without `repeat`")
            first = opened.pop()
            steps = tuple(stack.pop())
            stack[-1].append(Step(first.line, "repeat", first.text, steps))
        else:
            stack[-1].append(step)
    if opened:
        raise ScriptError(f"{path.name}: `repeat` without `end`")
    return Script(path, header, tuple(stack[0]), tuple(header.get("row", "").split()))
