"""A scripted DNS server on loopback, UDP and TCP on one port, with programmable faults.

`zone` maps (name, type) to a list of record texts, or to a fault: `SERVFAIL`, `REFUSED`, `NXDOMAIN`, `TIMEOUT`, `GARBAGE`,
or ("TRUNCATE" | "SPOOF", records): UDP is truncated (TCP answers whole), or a wrong id comes before the true answer.
A name of the zone without the asked type is NODATA; any other name is NXDOMAIN. CNAME records of the zone are followed, unless
`chase` is false.
"""

import asyncio
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = list[str]
Zone = dict[tuple[str, str], "Records | str | tuple[str, Records]"]


class DnsStub(asyncio.DatagramProtocol):
    """The server."""

    def __init__(self, zone: Zone, *, ttl: int = 300, chase: bool = True) -> None:
        self.zone, self.ttl, self.chase = zone, ttl, chase
        self.port = 0
        self.asked: list[tuple[str, str, str]] = []  # (transport, name, type)
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "DnsStub":
        self._server = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        assert self._transport is not None
        self._server.close()
        self._transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own shape

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        for octets in self.answers(data, "udp"):
            self._transport.sendto(octets, addr)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            for octets in self.answers(await reader.readexactly(size), "tcp"):
                writer.write(len(octets).to_bytes(2, "big") + octets)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def answers(self, octets: bytes, transport: str) -> list[bytes]:
        """Give what to send back, in order."""
        query = dns.message.from_wire(octets)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((transport, name, kind))
        entry = self.zone.get((name, kind))
        fault, records = entry if isinstance(entry, tuple) else (entry, []) if isinstance(entry, str) else ("", entry or [])
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        match fault:
            case "TIMEOUT":
                return []
            case "GARBAGE":
                return [octets[:2] + b"\xff" * 20]
            case "SERVFAIL" | "REFUSED" | "NXDOMAIN":
                answer.set_rcode(dns.rcode.from_text(fault))
                if fault == "NXDOMAIN":
                    self._say_how_long(answer, name)
                return [answer.to_wire()]
            case "TRUNCATE" if transport == "udp":
                answer.flags |= dns.flags.TC
                return [answer.to_wire()]
        self._fill(answer, name, kind, records)
        right = answer.to_wire(max_size=65535)
        if fault == "SPOOF":
            false = dns.message.make_response(query)
            false.id = (query.id + 1) % 65536
            self._fill(false, name, kind, ["203.0.113.66"] if kind == "A" else ["0 evil.example."])
            return [false.to_wire(), right]
        return [right]

    def _fill(self, answer: dns.message.Message, name: str, kind: str, records: Records) -> None:
        for _ in range(8):
            if records:
                answer.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", kind, *records))
                return
            alias = self.zone.get((name, "CNAME"))
            if not isinstance(alias, list):
                break
            answer.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", *alias))
            if not self.chase:
                return
            name = alias[0].rstrip(".").lower()
            found = self.zone.get((name, kind))
            records = found if isinstance(found, list) else []
        if not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._say_how_long(answer, name)

    def _say_how_long(self, answer: dns.message.Message, name: str) -> None:
        """Give a no its SOA record, which bounds how long it is believed (RFC 2308)."""
        soa = f"ns.example. host.example. 1 3600 600 86400 {self.ttl}"
        answer.authority.append(dns.rrset.from_text(name.rpartition(".")[2] + ".", self.ttl, "IN", "SOA", soa))
