"""Fuzz the reader of content against a slow and simple one: same content, same flaw, same end, however it is cut."""

import re
import sys

import atheris

with atheris.instrument_imports(include=["postbud.wire.data"]):
    from postbud.model.refusal import Why
    from postbud.wire.data import DataReader

LIMIT = 300
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")


def simple(octets: bytes, *, normalise: bool) -> tuple[bytes | None, Why | None, bytes] | None:
    """Give content, flaw and rest as the standard's words say it; None without an end."""
    lines, rest = [], octets
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            break
        lines.append(line.removeprefix(b".") + end)
    content = b"".join(lines)
    if normalise:
        content = re.sub(rb"(?<!\r)\n", b"\r\n", content)
    flaw = None
    if len(content) > LIMIT:
        flaw = Why.TOO_BIG
    elif b"\0" in content:
        flaw = Why.BAD_CONTENT
    elif BARE.search(content):
        flaw = Why.BAD_LINE_ENDS
    return (None if flaw else content), flaw, rest


def read(octets: bytes, piece: int, *, normalise: bool) -> tuple[bytes | None, Why | None, bytes] | None:
    """Give the same by our reader."""
    reader, content = DataReader(LIMIT, normalise=normalise), b""
    for start in range(0, len(octets), piece):
        content += reader.feed(octets[start : start + piece])
        assert len(content) <= LIMIT
        if reader.ended:
            rest = reader.rest + octets[start + piece :]
            return (None if reader.flaw else content), reader.flaw, rest
    return None


def test_one_input(data: bytes) -> None:
    """Try one input."""
    for normalise in (False, True):
        wanted = simple(data, normalise=normalise)
        for piece in (len(data) or 1, 1, 3):
            assert read(data, piece, normalise=normalise) == wanted, (wanted, piece, normalise)


def main() -> None:
    """Fuzz; libFuzzer's options are those of the command line, such as -max_total_time=30."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
