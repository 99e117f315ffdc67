"""Fuzzes what reads requests of the sending API: JSON, the order in it, and the content that is composed of it.

Every octet string is an order or a problem; what is composed has no field that nobody asked for, and lines that fit the wire.
"""

import sys
from contextlib import suppress
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports(include=["postbud"]):
    from postbud.httpd.order import compose_content, read_order
    from postbud.httpd.problem import Problem
    from postbud.httpd.strict_json import BadJson, parse
    from postbud.mime.header import HeaderSection
    from postbud.mime.line_ends import BareLineEnd, LineEnds

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OURS = {b"from", b"to", b"cc", b"reply-to", b"subject", b"mime-version", b"content-type", b"content-transfer-encoding"}


def read_request(octets: bytes) -> None:
    try:
        tree = parse(octets)
    except BadJson:
        return
    try:
        order = read_order(tree, NOW)
        if order.letter is None:
            return
        header, body = compose_content(order, lambda _: "token")
    except Problem as no:
        if no.status != 422 or not no.errors:
            raise
        return
    asked = {name.lower().encode() for name, _ in order.letter.headers}
    assert {field.name for field in HeaderSection.parse(header).fields} <= OURS | asked
    assert body.count(b"\r\n") == body.count(b"\r") == body.count(b"\n")
    assert max(map(len, body.split(b"\r\n"))) <= 998


def read_raw(octets: bytes) -> None:
    ends = LineEnds()
    with suppress(BareLineEnd):
        whole = b"".join([ends.feed(octets[at : at + 7]) for at in range(0, len(octets), 7)] + [ends.end()])
        assert whole.count(b"\r\n") == whole.count(b"\r") == whole.count(b"\n")


def test_one_input(octets: bytes) -> None:
    read_request(octets)
    read_raw(octets)


def main() -> None:
    """Fuzz until libFuzzer's `-max_total_time` is over."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
