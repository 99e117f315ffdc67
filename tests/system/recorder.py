"""A sink that records: takes all mail, writes a JSON line a message (flushed before its 250), and misbehaves on request.

Run: python -m tests.system.recorder PORT FILE [--delay SECONDS] [--no-content]

A receipt is {at, sender, recipients, test_id, sha256, octets, session, helo, content?}. `sha256` is of the content from
its first `X-Test-Id` field on: what a relay prepends does not count, all else does. A recipient's local part may ask for
trouble, so that one sink serves every test without state of its own:

| local part begins with | the sink |
|---|---|
| `rcpt-452-`, `rcpt-550-` (any code) | refuses that RCPT with the code |
| `dot-451-`, `dot-554-` (any code) | answers the final dot so, records with `"refused": code` |
| `drop-` | records, then closes without an answer to the final dot |
| `slow-` | records, answers the final dot after 2 s |
| `hang-rcpt-`, `hang-data-` | never answers RCPT, or DATA |
| `bye-` | answers the final dot with 250 and closes at once, without 221 |

Ends each answer `drop-once-…`: the same, but only the first time for a given recipient.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import re
import time
from typing import Any, TextIO

from tests.system.smtp import content_digest

_CODE = re.compile(r"(rcpt|dot)-(?:once-)?([45]\d\d)-")
_PATH = re.compile(rb"<([^>]*)>")


class Session(asyncio.Protocol):
    """One connection. Only what a well-behaved client needs."""

    count = 0

    def __init__(self, out: TextIO, delay: float, keep: bool, once: set[str]) -> None:
        self._out, self._delay, self._keep, self._once = out, delay, keep, once
        self._buffer = bytearray()
        self._scanned = 0
        self._in_data = False
        self._busy = False
        Session.count += 1
        self._number = Session.count
        self._helo = ""
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._say("220 sink.example ESMTP")

    def _say(self, line: str) -> None:
        self._transport.write(line.encode() + b"\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def _work(self) -> None:
        while not self._busy and not self._transport.is_closing():
            if self._in_data:
                if self._buffer.startswith(b".\r\n"):
                    end, skip = 0, 3
                else:
                    end = self._buffer.find(b"\r\n.\r\n", max(0, self._scanned - 5))
                    if end < 0:
                        self._scanned = len(self._buffer)
                        return
                    end, skip = end + 2, 3
                content = bytes(self._buffer[:end])
                del self._buffer[: end + skip]
                self._in_data = False
                self._message(content)
            else:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    return
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb in (b"EHLO", b"HELO"):
            self._helo = line[5:].decode("ascii", "replace")
            self._reset()
            for text in ("250-sink.example", "250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8", "250-SIZE 0"):
                self._say(text)
            self._say("250 ENHANCEDSTATUSCODES")
        elif verb == b"MAIL":
            self._sender = _path(line)
            self._recipients = []
            self._say("250 2.1.0 Ok")
        elif verb == b"RCPT":
            self._rcpt(_path(line))
        elif verb == b"DATA":
            if not self._recipients:
                self._say("554 5.5.1 No valid recipients")
            elif any(mailbox.startswith("hang-data-") and self._first_time(mailbox) for mailbox in self._recipients):
                return
            else:
                self._in_data, self._scanned = True, 0
                self._say("354 Go on")
        elif verb == b"RSET":
            self._reset()
            self._say("250 2.0.0 Ok")
        elif verb == b"QUIT":
            self._say("221 2.0.0 Bye")
            self._transport.close()
        elif verb == b"NOOP":
            self._say("250 2.0.0 Ok")
        else:
            self._say("500 5.5.2 What?")

    def _first_time(self, mailbox: str) -> bool:
        local_part = mailbox.partition("@")[0]
        if "-once-" not in local_part:
            return True
        if mailbox in self._once:
            return False
        self._once.add(mailbox)
        return True

    def _rcpt(self, mailbox: str) -> None:
        trouble = _CODE.match(mailbox)
        if mailbox.startswith("hang-rcpt-") and self._first_time(mailbox):
            return
        if trouble and trouble[1] == "rcpt" and self._first_time(mailbox):
            self._say(f"{trouble[2]} {trouble[2][0]}.2.1 As asked")
            return
        self._recipients.append(mailbox)
        self._say("250 2.1.5 Ok")

    def _message(self, stuffed: bytes) -> None:
        content = stuffed.replace(b"\r\n.", b"\r\n")
        if content.startswith(b"."):
            content = content[1:]
        trouble = next((found for found in map(_CODE.match, self._recipients) if found and found[1] == "dot"), None)
        refused = trouble[2] if trouble and all(map(self._first_time, self._recipients)) else None
        test_id, digest = content_digest(content)
        record: dict[str, Any] = {
            "at": time.time(),
            "sender": self._sender,
            "recipients": self._recipients,
            "test_id": test_id,
            "sha256": digest,
            "octets": len(content),
            "session": self._number,
            "helo": self._helo,
            "whole_sha256": hashlib.sha256(content).hexdigest(),
        }
        if refused:
            record["refused"] = refused
        if self._keep:
            record["content"] = base64.b64encode(content).decode()
        drop = any(mailbox.startswith("drop-") for mailbox in self._recipients) and all(map(self._first_time, self._recipients))
        if drop:
            record["dropped"] = True
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()
        if drop:
            self._transport.close()
            return
        slow = any(mailbox.startswith("slow-") for mailbox in self._recipients)
        if any(mailbox.startswith("bye-") for mailbox in self._recipients):
            self._say("250 2.0.0 Ok, and bye")
            self._transport.close()
            return
        self._reset()
        answer = f"{refused} {refused[0]}.0.0 As asked" if refused else "250 2.0.0 Ok"
        delay = self._delay + (2.0 if slow else 0.0)
        if delay:
            self._busy = True
            asyncio.get_running_loop().call_later(delay, self._answer, answer)
        else:
            self._say(answer)

    def _answer(self, answer: str) -> None:
        self._busy = False
        if not self._transport.is_closing():
            self._say(answer)
            self._work()


def _path(line: bytes) -> str:
    found = _PATH.search(line)
    return found[1].decode("utf-8", "replace") if found else ""


async def serve(port: int, path: str, delay: float, keep: bool) -> None:
    once: set[str] = set()
    with open(path, "a", encoding="ascii") as out:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(out, delay, keep, once), "127.0.0.1", port, backlog=512)
        async with server:
            await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the answer to the final dot")
    parser.add_argument("--no-content", action="store_true", help="do not keep the octets")
    words = parser.parse_args()
    asyncio.run(serve(words.port, words.file, words.delay, not words.no_content))


if __name__ == "__main__":
    main()
