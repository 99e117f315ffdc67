"""A DNS server in a thread, which is the recursive one and that of every zone; zone files are pasted into it."""

import asyncio
import threading

import dns.zone

from tests.system.dns_stub import DnsStub


class World:
    """A DNS server in a thread, which is the recursive one and that of every zone."""

    def __init__(self) -> None:
        self.stub = DnsStub({})
        self.loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=(self._serve(),), daemon=True)

    async def _serve(self) -> None:
        async with self.stub:
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> "World":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self.loop.close()

    def delegate(self, zone: str) -> None:
        """Say that a zone's own server is this one too."""
        self.stub.zone |= {(zone, "NS"): ["ns.host.example."], ("ns.host.example", "A"): ["127.0.0.1"]}

    def paste(self, text: str) -> None:
        """Publish a zone file, as a provider would read it."""
        for name, kind, value in read_zone(text):
            entry = self.stub.zone.setdefault((name, kind), [])
            assert isinstance(entry, list)
            entry.append(value)

    def drop(self, name: str, kind: str = "TXT") -> None:
        self.stub.zone.pop((name, kind))


def read_zone(text: str) -> list[tuple[str, str, str]]:
    zone = dns.zone.from_text("$TTL 60\n@ IN SOA ns. host. 1 2 3 4 5\n@ IN NS ns.\n" + text, origin=".", relativize=False)
    return [
        (name.to_text(omit_final_dot=True), kind, rdata.to_text())
        for name, node in zone.nodes.items()
        for rdataset in node.rdatasets
        for rdata in rdataset
        if (kind := rdataset.rdtype.name) in {"TXT", "CNAME"}
    ]
