"""Fuzz a server session: whatever comes, no exception, and segments make no difference to events and replies."""

import sys

import atheris

with atheris.instrument_imports(include=["postbud.wire", "postbud.model.mailbox"]):
    from postbud.model.mailbox import Mailbox
    from postbud.wire.events import MAX_REPLY_OCTETS, ContentChunk, EndOfData, Rcpt, SecretExposed, ServerSettings, StartTls
    from postbud.wire.server import ServerConnection

SETTINGS = ServerSettings(
    hostname="relay.example", size_limit_octets=2_000, recipients_limit=5, starttls=True, auth_without_tls=True
)
BAD = Mailbox("bad", "dest.example")


def converse(octets: bytes, piece: int) -> tuple[list[object], list[bytes], bytes]:
    """Give events, the contents that came to a good end, and replies."""
    wire, events, contents, content = ServerConnection(SETTINGS), [], [], b""
    said = b""
    for start in range(0, len(octets), piece):
        wire.feed(octets[start : start + piece])
        while (event := wire.next_event()) is not None:
            if isinstance(event, ContentChunk):
                content += event.octets
                continue
            events.append(event)
            if isinstance(event, SecretExposed):
                continue
            if (isinstance(event, Rcpt) and event.recipient.mailbox == BAD) or isinstance(event, StartTls):
                wire.refuse(b"550 5.7.1 No\r\n")
            elif isinstance(event, EndOfData) and event.flaw is not None:
                wire.refuse(b"550 5.5.2 No\r\n", close=True)
            else:
                if isinstance(event, EndOfData):
                    contents.append(content)
                    content = b""
                wire.accept("msg_1")
        said += wire.take()
    return events, contents, said


def test_one_input(data: bytes) -> None:
    """Try one input."""
    whole = converse(data, len(data) or 1)
    for line in whole[2].split(b"\r\n"):
        assert len(line) <= MAX_REPLY_OCTETS - 2
        assert line.isascii()
        assert b"\n" not in line
        assert b"\r" not in line
    # a STARTTLS with something behind it is answered differently, on purpose (row C1)
    if b"STARTTLS" not in data.upper():
        assert converse(data, 1) == whole
        assert converse(data, 7) == whole


def main() -> None:
    """Fuzz; libFuzzer's options are those of the command line, such as -max_total_time=30."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
