"""Load on the sending API of a relay that may be killed at any time, as a careful program does it.

Every message has an Idempotency-Key and is sent until it is answered 202. The log is of the shape that `invariants` reads;
nothing in it is ever `unknown`.
"""

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.http_client import Api
from tests.system.smtp import content_digest, make_content, new_test_id


@dataclass
class HttpLoad:
    """Some clients in threads of their own."""

    api: Api
    path: Path
    clients: int = 4
    recipients: tuple[int, ...] = (1, 1, 3)
    keys: tuple[tuple[str, str], ...] = (("api-1", "acme.example"), ("api-beta", "beta.example"))
    counts: dict[str, int] = field(default_factory=lambda: {"queued": 0, "again": 0, "replayed": 0})
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._out = self.path.open("a", encoding="ascii")
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(self.clients)]

    def start(self) -> "HttpLoad":
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> dict[str, int]:
        """End after the messages under way; give the counts."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        self._out.close()
        return self.counts

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        while not self._stop.is_set():
            self._message(dice)

    def _message(self, dice: random.Random) -> None:
        test_id = new_test_id()
        key, domain = dice.choice(self.keys)
        recipients = [f"r{n}-{test_id}@dest.example" for n in range(dice.choice(self.recipients))]
        content = make_content(test_id, dice.choice((1024, 4096, 16384)), sender=f"printer@{domain}", recipient=recipients[0])
        query = f"?from=printer@{domain}" + "".join(f"&to={mailbox}" for mailbox in recipients)
        record: dict[str, Any] = {
            "at": time.time(),
            "test_id": test_id,
            "account": "acct_" + domain.partition(".")[0],
            "recipients": recipients,
            "sha256": content_digest(content)[1],
        }
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = self.api.post_raw(content, query, key=key, Idempotency_Key=test_id, timeout=20)
            except (OSError, http.client.HTTPException):
                self.counts["again"] += 1
                time.sleep(0.05 + dice.random() * 0.1)
                continue
            if answer.status == 202:
                self.counts["queued"] += 1
                self.counts["replayed"] += "idempotency-replayed" in answer.headers
                self._log(record | {"state": "queued", "message": answer.json["id"]})
                return
            if answer.status != 503 or "retry-after" not in answer.headers:
                self.problems.append(f"{answer.status} {answer.body!r}")
                return
            self.counts["again"] += 1
            time.sleep(0.1)
        self.problems.append(f"{test_id} was not accepted within a minute")

    def _log(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(record) + "\n")
            self._out.flush()
