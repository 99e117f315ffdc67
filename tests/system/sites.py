"""Many sites at once: scripted next hops on loopback addresses of their own, name servers, one relay, one client.

A fault test takes a site of its own, sends letters to it, mends what was wrong, and ends in the invariant checker: what the
client was promised, what is queued, what the next hops took, what the events say. `check` judges some letters, which may go on
while others are under way; `check_all` judges everything, by `invariants.check_relay`, once the queue is empty.

Reports (DSNs) have no client; they are kept out of the next hops' log and given by `reports`.
"""

import asyncio
import contextlib
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from postbud.app.control import call
from tests.ports import free_port
from tests.system.directory import Settings
from tests.system.dns_stub import DnsStub, Zone
from tests.system.harness import FINAL_KINDS, Relay, json_lines, wait_until
from tests.system.invariants import Report, check, check_relay
from tests.system.sink import Sink
from tests.system.smtp import content_digest, make_content, new_test_id, queued_id, submit

T = TypeVar("T")
Record = dict[str, Any]
REPORTS_DOMAIN = "acme.example"  # senders are there, so reports go there
OWNERS = {"printer-1": ("acct_acme", REPORTS_DOMAIN), "beta-1": ("acct_beta", "beta.example")}
QUICK_RETRIES: dict[str, object] = {"retry_first_seconds": 0.5, "retry_max_seconds": 1}
FIRST_ADDRESS = ipaddress.IPv4Address("127.1.0.1")


@dataclass(frozen=True)
class Letter:
    """One message that was answered 250."""

    test_id: str
    message: str
    recipients: tuple[str, ...]
    sender: str
    content: bytes


class Sites:
    """A relay by MX, and everything that it can reach. All sites are on one port, each host on its own address."""

    def __init__(self, folder: Path, relay: dict[str, object], *, name_servers: int = 1, ttl: int = 1) -> None:
        self.port = free_port()
        self.client_path = folder / "client.jsonl"
        self.sinks: dict[str, Sink] = {}  # by address
        self.restored: dict[str, Callable[[bytes], bytes]] = {}  # by test id: what undoes a documented change of content
        self.certificate: tuple[Path, ...] = ()  # authority, certificate, key: for a module that needs one
        self._addresses = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sites", daemon=True)
        self._thread.start()
        self.name_servers = [self._run(DnsStub({}, ttl=ttl).__aenter__()) for _ in range(name_servers)]
        servers = ", ".join(f'"127.0.0.1:{stub.port}"' for stub in self.name_servers)
        self.settings = Settings(
            relay={"smtp_port": self.port, "expire_after_seconds": 600, "retry_first_seconds": 0.5, "retry_max_seconds": 1}
            | relay,
            extra=f"[dns]\nnameservers = [{servers}]\n",
        )
        self.relay = Relay(folder, self.settings)
        self.reports_address = self.site(REPORTS_DOMAIN)

    def start(self) -> None:
        """Start the relay, on the settings as they are now."""
        self.relay.write_settings()
        self.relay.start()

    def close(self) -> None:
        """End all."""
        self.relay.close()
        servers: list[Sink | DnsStub] = [*self.sinks.values(), *self.name_servers]
        for server in servers:
            self._run(server.__aexit__())
        self._run(asyncio.sleep(0.05))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(15)

    # --- sites ---

    def host(self, script: Record | None = None) -> str:
        """Make a next hop; give its address."""
        address = str(FIRST_ADDRESS + self._addresses)
        self._addresses += 1
        self.sinks[address] = self._run(Sink(script, host=address, port=self.port).__aenter__())
        return address

    def site(self, domain: str, *scripts: Record) -> str:
        """Make a domain with a next hop a script, in this order of preference; give the first one's address."""
        addresses = [self.host(script) for script in scripts or ({},)]
        names = [f"mx{number}.{domain}" for number in range(1, len(addresses) + 1)]
        self.zone_says({(domain, "MX"): [f"{number}0 {name}." for number, name in enumerate(names, 1)]})
        self.zone_says({(name, "A"): [address] for name, address in zip(names, addresses, strict=True)})
        return addresses[0]

    def many(self, domains: list[str], script: Record) -> Sink:
        """Make domains, each a site of its own by the name of its host, that share one next hop; give it."""
        address = self.host(script)
        for domain in domains:
            self.zone_says({(domain, "MX"): [f"10 mx1.{domain}."], (f"mx1.{domain}", "A"): [address]})
        return self.sinks[address]

    def sink_of(self, domain: str, number: int = 1) -> Sink:
        """Give a site's next hop."""
        records = self.name_servers[0].zone[f"mx{number}.{domain}", "A"]
        assert isinstance(records, list)
        return self.sinks[records[0]]

    def mend(self, domain: str) -> None:
        """Let every next hop of a site behave from now on."""
        for (name, kind), records in list(self.name_servers[0].zone.items()):
            if kind == "A" and name.endswith("." + domain) and isinstance(records, list):
                self.sinks[records[0]].script = {}

    def zone_says(self, zone: Zone, *servers: int) -> None:
        """Change what name servers know; all of them unless numbers say which."""
        for number, stub in enumerate(self.name_servers):
            if not servers or number in servers:
                stub.zone.update(zone)

    # --- the client ---

    def send(self, *recipients: str, content: bytes | None = None, username: str = "printer-1", **more: Any) -> Letter:
        """Submit a message and note it in the client's log; `more` is for `smtp.submit`."""
        account, domain = OWNERS[username]
        content = content or make_content(new_test_id(), sender=f"printer@{domain}")
        test_id, digest = content_digest(content)
        sender = f"from-{test_id}@{domain}"
        more |= {"sender": sender, "username": username}
        reply = submit(self.relay.ports["cleartext"], content, list(recipients), **more)
        letter = Letter(test_id, queued_id(reply), recipients, sender, content)
        record = {"at": time.time(), "test_id": test_id, "account": account, "recipients": recipients, "sha256": digest}
        with self.client_path.open("a") as file:
            file.write(json.dumps(record | {"state": "queued", "message": letter.message}) + "\n")
        return letter

    # --- witnesses ---

    def received(self) -> list[Record]:
        """Give what next hops took whole, as the checker reads it, without reports."""
        return [
            self._receipt(message)
            for address, sink in self.sinks.items()
            for message in list(sink.messages)
            if not (address == self.reports_address and _is_report(message))
        ]

    def _receipt(self, message: Record) -> Record:
        test_id, digest = content_digest(message["content"])
        if test_id in self.restored:
            digest = content_digest(self.restored[test_id](message["content"]))[1]
        receipt = {"at": message["at"], "recipients": list(message["recipients"]), "test_id": test_id, "sha256": digest}
        code = message["reply"][:3]
        return receipt | ({"refused": code} if code[:1] in ("4", "5") else {})

    def reports(self, letter: Letter) -> list[bytes]:
        """Give the reports about a letter that came to its sender."""
        messages = list(self.sinks[self.reports_address].messages)
        return [one["content"] for one in messages if _is_report(one) and letter.sender in one["recipients"]]

    def events(self, letter: Letter, mailbox: str | None = None) -> list[Record]:
        """Give the events of one recipient (the only one unless said) after `accepted`."""
        mailbox = mailbox or letter.recipients[0]
        found = self.relay.events_of(letter.message)
        accepted = next((event for event in found if event["kind"] == "accepted"), None)
        if accepted is None:
            return []
        delivery = accepted["deliveries"][accepted["recipients"].index(mailbox)]
        return [event for event in found if event.get("delivery") == delivery]

    def latencies(self, *letters: Letter) -> list[float]:
        """Give how long each letter took from accepted to delivered, in seconds, by its events; shortest first."""
        wanted = {letter.message for letter in letters}
        found = [event for event in self.relay.events() if event["kind"] == "delivered" and event["message"] in wanted]
        return sorted(event["latency_seconds"] for event in found)

    def explain(self, domain: str) -> str:
        """Give what `postbud queue explain` says of a domain."""
        return self.relay.command("queue", "explain", domain, "--config", "postbud.toml")

    def kinds(self, letter: Letter, mailbox: str | None = None) -> list[str]:
        """Give the kinds of those events."""
        return [event["kind"] for event in self.events(letter, mailbox)]

    def wait_deferred(self, *letters: Letter, seconds: float = 40.0) -> None:
        """Wait until each recipient of each letter was deferred once."""
        wanted = {letter.message: len(letter.recipients) for letter in letters}

        def done() -> bool:
            deferred: dict[str, set[str]] = {}
            for event in self.relay.events():
                if event["kind"] == "deferred":
                    deferred.setdefault(event["message"], set()).add(event["delivery"])
            return all(len(deferred.get(message, ())) >= count for message, count in wanted.items())

        wait_until(done, f"{len(letters)} letters are deferred", seconds, every=0.1)

    def wait_deferred_one(self, letter: Letter, mailbox: str) -> None:
        """Wait until one recipient was deferred, and so the others of its transaction are recorded, too."""
        wait_until(lambda: "deferred" in self.kinds(letter, mailbox), f"{mailbox} is deferred", 20, every=0.1)

    def wait_final(self, *letters: Letter, seconds: float = 40.0) -> None:
        """Wait until each letter is final."""
        self.relay.wait_final({letter.message for letter in letters}, seconds)

    def queued(self) -> list[Record]:
        """Give every queued delivery, from the workers' own sockets: the command says the same half a second later."""
        sockets = sorted((self.relay.data / "run").glob("worker-*.sock"))
        assert sockets
        return [row for path in sockets for row in self._run(call(path, {"op": "list", "limit": 1000}))["rows"]]

    # --- judging ---

    def check(self, *letters: Letter) -> dict[str, int]:
        """Judge letters that nothing happens to now: final ones, and queued ones whose site is not mended yet."""
        ids = {letter.test_id for letter in letters}
        messages = {letter.message for letter in letters}
        mailboxes = {mailbox for letter in letters for mailbox in letter.recipients}
        sink = [one for one in self.received() if one["test_id"] in ids or mailboxes & set(one["recipients"])]
        report = check(
            [record for record in json_lines([self.client_path]) if record["test_id"] in ids],
            sink,
            [event for event in self.relay.events() if event.get("message") in messages],
            [row for row in self.queued() if row["message"] in messages],
        )
        return self._counts(report, sum(len(letter.recipients) for letter in letters))

    def check_all(self) -> dict[str, int]:
        """Wait until nothing is queued; judge the whole log."""
        self.relay.wait_drained()
        promised = sum(len(record["recipients"]) for record in json_lines([self.client_path]))
        counts = self._counts(check_relay(self.relay, self, self.client_path), promised)
        assert counts["queued_still"] == 0
        accepted = {event["message"] for event in self.relay.events() if event["kind"] == "accepted"}
        assert {event["message"] for event in self.relay.events() if event["kind"] in FINAL_KINDS} == accepted
        return counts

    @staticmethod
    def _counts(report: Report, promised: int) -> dict[str, int]:
        assert not report.violations, report.as_json()
        assert report.counts["promised"] == promised > 0
        return report.counts

    def wait_reports(self, letter: Letter, count: int = 1) -> list[bytes]:
        """Wait for reports about a letter; give them, exactly so many."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: len(self.reports(letter)) >= count, "the report", 20)
        found = self.reports(letter)
        assert len(found) == count
        return found


def _is_report(message: Record) -> bool:
    return bool(message["mail"].upper().startswith("FROM:<>"))
