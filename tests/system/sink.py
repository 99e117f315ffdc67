"""A fault sink: an SMTP server whose answer at every stage, pace, end and TLS is scripted; it records each message it took.

Run: python tests/system/sink.py --listen 127.0.0.1:2727 [--script script.json] [--log messages.jsonl]
In a test: `async with Sink({...}) as sink: … sink.port … sink.messages`.

A script is an object. Stages: `banner ehlo helo starttls auth mail rcpt data end rset quit other`. A stage's value is one
action, or a list of them for its first, second, … time on the whole sink (the last repeats). An action is a reply line
without CRLF (`|` parts lines), or an object, all keys optional:

| key | the sink |
|---|---|
| `reply` | says it (as above); `raw` says octets as they are (latin-1, nothing added) |
| `wait` | waits so many seconds before it |
| `drip` | sends it one octet each so many seconds |
| `end` | after it: `close`, `reset` or `hang` |

Other keys: `words` (EHLO keywords), `tls_words` (those inside TLS), `recipients` (RCPT's reply by address), `certificate` and
`key` (paths; without them STARTTLS is refused), `handshake` (`fail`), `inject` (octets with the 220 to STARTTLS),
`content_close` and `content_reset` (ends after so many octets of content), `content_hang` (stops reading there),
`early` (says it after so many octets: [octets, reply]). Limits, each [number, reply]: `connections_limit` (a banner beyond so
many at once), `recipients_limit` (RCPT beyond so many in a transaction), `mails_per_second` (MAIL beyond so many within a
second); `greylist` (RCPT's reply the first time that an address is named); `senders` (MAIL's reply by the sender's domain).
"""

import argparse
import asyncio
import bisect
import hashlib
import json
import select
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any

DEFAULT_WORDS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
DEFAULTS: dict[str, str] = {
    "banner": "220 sink.example ESMTP",
    "helo": "250 sink.example",
    "starttls": "220 2.0.0 go ahead",
    "auth": "235 2.7.0 welcome",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "end": "250 2.0.0 taken",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
    "other": "500 5.5.1 what",
}
_VERBS = frozenset({"EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "QUIT"})


class _EndError(Exception):
    """The session ends here."""


class Sink:
    """The server; `messages` are what it answered with a yes or no after the whole content came."""

    def __init__(
        self, script: dict[str, Any] | None = None, *, log: Path | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.script = script or {}
        self.messages: list[dict[str, Any]] = []
        self.commands: list[str] = []  # of all sessions, in order
        self.sessions = 0
        self.most_open = 0  # connections at once
        self.begun: list[float] = []  # when MAIL was taken
        self._known: set[str] = set()  # addresses that were named: what a greylist remembers
        self._open: set[asyncio.StreamWriter] = set()
        self.host, self.port = host, port
        self._log = log
        self._times: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Sink":
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def action(self, stage: str, default: str | None = None) -> dict[str, Any]:
        """Give what to do this time."""
        value = self.script.get(stage, default or DEFAULTS.get(stage, "250 ok"))
        if isinstance(value, list):
            turn = self._times.get(stage, 0)
            self._times[stage] = turn + 1
            value = value[min(turn, len(value) - 1)]
        return {"reply": value} if isinstance(value, str) else value

    def limited(self, key: str, number: int) -> str | None:
        """Give the reply of a limit that is exceeded."""
        limit = self.script.get(key)
        return limit[1] if limit and number > limit[0] else None

    def greylisted(self, address: str) -> str | None:
        """Give the reply to an address that is named the first time."""
        known = address in self._known
        self._known.add(address)
        return None if known else self.script.get("greylist")

    def open_now(self) -> int:
        """Count connections whose client is there: the kernel knows of one that was killed before our loop does."""
        files = [writer.get_extra_info("socket").fileno() for writer in self._open]
        poll = select.poll()
        for file in files:
            if file >= 0:  # else it was closed meanwhile
                poll.register(file, select.POLLRDHUP)
        return sum(file >= 0 for file in files) - len(poll.poll(0))

    def begun_lately(self) -> int:
        """Count the MAIL commands that were taken within the last second."""
        return len(self.begun) - bisect.bisect(self.begun, time.monotonic() - 1.0)

    def record(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(json.dumps({key: value for key, value in message.items() if key != "content"}) + "\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.sessions += 1
        self._open.add(writer)
        session = _Session(self, reader, writer)
        try:
            if len(self._open) > self.most_open:
                self.most_open = max(self.most_open, self.open_now())
            await session.run()
        except (_EndError, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the sink ends
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.transport.abort()


class _Session:
    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sink, self.reader, self.writer = sink, reader, writer
        self.tls = False
        self.helo = ""
        self.mail = ""
        self.mailing = False
        self.recipients: list[str] = []

    async def run(self) -> None:
        limits = "connections_limit" in self.sink.script
        refused = self.sink.limited("connections_limit", self.sink.open_now()) if limits else None
        await self.act({"reply": refused, "end": "close"} if refused else self.sink.action("banner"))
        while True:
            line = (await self.reader.readuntil(b"\r\n"))[:-2].decode("utf-8", "backslashreplace")
            self.sink.commands.append(line)
            await self.command(line)

    async def command(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        stage = verb.lower() if verb.upper() in _VERBS else "other"
        if stage == "ehlo":
            self.helo = rest
            await self.act(self.sink.action("ehlo", self.offer()))
        elif stage == "rcpt":
            address = rest[rest.find("<") + 1 : rest.rfind(">")]
            reply = self.sink.script.get("recipients", {}).get(address) or self.sink.greylisted(address)
            reply = reply or self.sink.limited("recipients_limit", len(self.recipients) + 1)
            if not self.mailing:
                reply = "503 5.5.1 no MAIL"
            if (await self.act({"reply": reply} if reply else self.sink.action("rcpt"))).startswith("2"):
                self.recipients.append(address)
        elif stage == "mail":
            self.mail, self.recipients = rest, []
            sender_domain = rest.partition(">")[0].rpartition("@")[2]
            refused = self.sink.script.get("senders", {}).get(sender_domain)
            refused = refused or self.sink.limited("mails_per_second", self.sink.begun_lately() + 1)
            self.mailing = (await self.act({"reply": refused} if refused else self.sink.action("mail"))).startswith("2")
            if self.mailing:
                self.sink.begun.append(time.monotonic())
        elif stage == "data":
            default = "554 5.5.1 no recipients" if not self.recipients else None
            if (await self.act(self.sink.action("data", default))).startswith("3"):
                await self.content()
        elif stage == "starttls":
            await self.start_tls()
        else:
            text = await self.act(self.sink.action(stage))
            if stage == "quit":
                raise _EndError
            while stage == "auth" and text.startswith("3"):
                self.sink.commands.append((await self.reader.readuntil(b"\r\n"))[:-2].decode())
                text = await self.act(self.sink.action("auth"))

    def offer(self) -> str:
        script = self.sink.script
        words = list(script.get("words", DEFAULT_WORDS))
        if self.tls:
            words = list(script.get("tls_words", words))
        elif "certificate" in script or "handshake" in script or "inject" in script or "starttls" in script:
            words.append("STARTTLS")
        return "|".join(f"250-{word}" for word in ["sink.example", *words[:-1]]) + (f"|250 {words[-1]}" if words else "|250 ok")

    async def act(self, action: dict[str, Any]) -> str:
        """Do it; give the reply's text."""
        await asyncio.sleep(action.get("wait", 0))
        reply = action.get("reply", "")
        octets = (
            action["raw"].encode("latin-1")
            if "raw" in action
            else "".join(f"{line}\r\n" for line in reply.split("|") if line).encode()
        )
        if "drip" in action:
            for at in range(len(octets)):
                self.writer.write(octets[at : at + 1])
                await self.writer.drain()
                await asyncio.sleep(action["drip"])
        elif octets:
            self.writer.write(octets)
            await self.writer.drain()
        await self.end(action.get("end"))
        return str(reply or action.get("raw", ""))

    async def end(self, how: str | None) -> None:
        if how == "hang":
            await asyncio.sleep(3600)
        elif how == "close":
            self.writer.close()
            raise _EndError
        elif how == "reset":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            raise _EndError

    async def start_tls(self) -> None:
        script = self.sink.script
        inject = script.get("inject")
        action = self.sink.action(
            "starttls", None if "certificate" in script or "handshake" in script or inject else "502 5.5.1 no"
        )
        if inject:
            action = {"raw": action["reply"] + "\r\n" + inject}
        if not (await self.act(action)).startswith("220"):
            return
        if script.get("handshake") == "fail":
            await self.reader.read(1000)  # the ClientHello
            self.writer.write(b"this is no handshake at all\r\n")
            await self.writer.drain()
            raise _EndError
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(script["certificate"], script["key"])
        await self.writer.start_tls(context)
        self.tls = True

    async def content(self) -> None:
        script, content = self.sink.script, bytearray()
        cut = next((script[key] for key in ("content_close", "content_reset", "content_hang") if key in script), None)
        early = script.get("early")
        while not (content.endswith(b"\r\n.\r\n") or content == b".\r\n"):
            if cut is not None and len(content) >= cut:
                await self.end(
                    next(
                        key.removeprefix("content_")
                        for key in ("content_close", "content_reset", "content_hang")
                        if key in script
                    )
                )
            if early is not None and len(content) >= early[0]:
                await self.act({"reply": early[1]})
                early = None
            if cut is not None:
                content += await self.reader.readexactly(1)
            else:
                content += await self.reader.readuntil(b"\n") if len(content) < 1 << 20 else await self.reader.read(1 << 16)
        whole = bytes(content[:-3])
        if whole.startswith(b"."):
            whole = whole[1:]
        whole = whole.replace(b"\r\n.", b"\r\n")
        action = self.sink.action("end")
        self.sink.record(
            {
                "at": time.time(),
                "mail": self.mail,
                "recipients": self.recipients,
                "sha256": hashlib.sha256(whole).hexdigest(),
                "octets": len(whole),
                "helo": self.helo,
                "tls": self.tls,
                "reply": action.get("reply", action.get("raw", "")),
                "content": whole,
            }
        )
        await self.act(action)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--script", type=Path)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    script = json.loads(options.script.read_text()) if options.script else {}
    async with Sink(script, log=options.log, host=host, port=int(port)) as sink:
        print(f"listening on {sink.host}:{sink.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
