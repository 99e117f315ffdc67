"""The whole product for black-box tests: `postbud serve --demo` on free ports in a folder of its own.

Knows it from outside: the command, `demo.json`, ports, `/health`, pages, and (read-only) the console's database. Built on
`harness.Relay`, so that killing, starting again and the invariant checker work alike.
"""

import contextlib
import http.cookiejar
import json
import os
import re
import sqlite3
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import psycopg.rows

from postbud.console.sqlite.lock import locked
from tests.ports import free_port
from tests.system.directory import SECRETS
from tests.system.harness import POSTBUD, Recorder, Relay, children_of, wait_until
from tests.system.invariants import Report, check
from tests.system.smtp import Wire, plain

_START_SECONDS = 60.0


class Product(Relay):
    """One `postbud serve --demo` and its folder. `next_hop` sends all mail there instead of to the catcher."""

    def __init__(
        self, folder: Path, *, workers: int = 2, next_hop: str | None = None, traffic: bool = False,
        settings: dict[str, object] | None = None, database: str = "",
    ) -> None:  # fmt: skip
        self.folder = folder
        names = ("cleartext", "implicit", "inbound", "catcher", "catcher_http", "api", "console", "telemetry")
        self.ports = {name: free_port() for name in names}
        self.telemetry_port = self.ports["telemetry"]
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = folder.parent / f"{folder.name}.log"
        self.kill_times: list[float] = []
        self.database = database  # of PostgreSQL; empty: SQLite in the folder
        settings = (settings or {}) | ({"console.database": database} if database else {})
        self.words = ["serve", "--demo", "--data", str(folder), *(["--traffic"] if traffic else [])]
        self.environment = self._environment(workers, next_hop) | {
            f"POSTBUD__{key.upper().replace('.', '__')}": json.dumps(value) for key, value in settings.items()
        }

    def _environment(self, workers: int, next_hop: str | None) -> dict[str, str]:
        at = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        listeners = (
            f'{{address = "{at["cleartext"]}", role = "submission", tls = "starttls", auth_without_tls = true}}',
            f'{{address = "{at["implicit"]}", role = "submission", tls = "implicit"}}',
            f'{{address = "{at["inbound"]}", role = "inbound"}}',
        )
        return {
            "POSTBUD__RELAY__LISTENER": f"[{', '.join(listeners)}]",
            "POSTBUD__RELAY__ROUTE": f'[{{match = "*", next_hop = "{next_hop or at["catcher"]}", tls = "none"}}]',
            "POSTBUD__RELAY__WORKERS": str(workers),
            "POSTBUD__RELAY__RETRY_FIRST_SECONDS": "1",
            "POSTBUD__RELAY__RETRY_MAX_SECONDS": "3",
            "POSTBUD__DEMO__SMTP_ADDRESS": f'"{at["catcher"]}"',
            "POSTBUD__DEMO__HTTP_ADDRESS": f'"{at["catcher_http"]}"',
            "POSTBUD__API__ADDRESS": f'"{at["api"]}"',
            "POSTBUD__CONSOLE__ADDRESS": f'"{at["console"]}"',
            "POSTBUD__TELEMETRY__ADDRESS": f'"{at["telemetry"]}"',
            "POSTBUD__TELEMETRY__LOG_LEVEL": '"info"',
        }

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder

    # --- life ---

    def start(self, *, wait: bool = True, **_: Any) -> None:
        """Start it and wait until all its programs are ready."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(POSTBUD), *self.words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | self.environment,
            )  # fmt: skip
        if wait:
            self.wait_whole()

    def wait_whole(self, seconds: float = _START_SECONDS) -> None:
        """Wait until every program is ready."""

        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"it ended: {self.log_tail()}")
            return bool(self.health().get("healthy"))

        try:
            wait_until(ready, "everything is ready", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.health()}\n{self.log_tail()}") from error
        self._learn_secrets()

    def _learn_secrets(self) -> None:
        SECRETS.update({server["username"]: server["secret"] for server in self.noted["servers"]})

    def greets(self) -> bool:
        """Tell whether the relay says 220."""
        with contextlib.suppress(OSError), Wire(self.ports["cleartext"], timeout=2) as wire:
            return wire.reply().code == 220
        return False

    def health(self) -> dict[str, Any]:
        """Give /health/all; empty when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry_port}/health/all", timeout=5) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
        except OSError:
            return {}

    def pids(self, program: str) -> list[int]:
        """Give the processes of a program: `worker`, `console-pages`, `console-link`, `console-jobs`, `demo-catcher`.

        Only the supervisor's own child, not what it forks.
        """
        found = []
        for child in children_of(self.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.pid and program.encode() in words:
                    found.append(child)
        return found

    def workers(self) -> list[int]:
        """Give the workers' process ids."""
        return self.pids("worker")

    def kill_program(self, program: str) -> None:
        """Kill -9 of a program, with what it forked."""
        for pid in self.pids(program):
            for each in (*children_of(pid), pid):
                self.kill(each)

    # --- what it printed ---

    @property
    def noted(self) -> dict[str, Any]:
        """demo.json."""
        return json.loads((self.folder / "demo.json").read_text())

    def server(self, kind: str = "transactional") -> dict[str, str]:
        """Give the server of a kind, as demo.json says."""
        return next(server for server in self.noted["servers"] if server["kind"] == kind)

    # --- use ---

    def session(self, kind: str = "transactional") -> Wire:
        """Open a session that is signed in."""
        server = self.server(kind)
        wire = Wire(self.ports["cleartext"])
        wire.hello()
        wire.expect(f"AUTH PLAIN {plain(server['username'], server['secret'])}", 235)
        return wire

    def api(
        self, method: str, path: str, body: object = None, *, kind: str = "transactional", key: str = ""
    ) -> tuple[int, Any]:  # fmt: skip
        """Ask the sending API; give status and answer."""
        request = urllib.request.Request(
            f"{self.noted['api_url']}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key or self.server(kind)['api_key']}", "Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def caught(self) -> list[dict[str, Any]]:
        """Give what the catcher caught."""
        with urllib.request.urlopen(f"{self.noted['catcher']['url']}/messages.json", timeout=10) as answer:
            return json.loads(answer.read())

    def browser(self, who: str = "customer") -> "Browser":
        """Give a client of the pages that is signed in."""
        browser = Browser(self.noted["console_url"])
        browser.sign_in(self.noted[who]["email"], self.noted[who]["password"])
        return browser

    # --- the database ---

    def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Read the console's database."""
        if self.database:
            with psycopg.connect(self.database, row_factory=psycopg.rows.dict_row) as connection:
                return connection.execute(statement.replace("?", "%s"), values).fetchall()  # type: ignore[call-overload]  # our text
        path = self.folder / "console.db"
        if not path.exists():
            return []
        with locked(path):  # opening and closing may move the WAL
            database = sqlite3.connect(path, timeout=20)
            try:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(statement, values)]
            finally:
                database.close()

    def deliveries(self, message: str) -> list[dict[str, Any]]:
        """Give a message's deliveries as the console has them."""
        return self.rows("SELECT * FROM mail_delivery WHERE message = ? ORDER BY id", message)

    def wait_state(self, message: str, state: str, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait until every delivery of a message stands so in the console."""

        def all_so() -> list[dict[str, Any]]:
            found = self.deliveries(message)
            return found if found and all(one["state"] == state for one in found) else []

        try:
            return wait_until(all_so, f"{message} is {state}", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.deliveries(message)}\n{self.log_tail()}") from error

    def console_events(self) -> list[dict[str, Any]]:
        """Give the console's events as the invariant checker reads them."""
        recipients: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows("SELECT message, id, mailbox FROM mail_delivery ORDER BY id"):
            recipients.setdefault(row["message"], []).append(row)
        senders = {row["id"]: row["credential"] for row in self.rows("SELECT id, credential FROM mail_message")}
        found = []
        for row in self.rows("SELECT * FROM mail_event ORDER BY id"):
            columns = {key: row[key] for key in ("account", "message", "id", "kind", "delivery")}
            event = json.loads(row["data"] or b"{}") | columns
            if row["kind"] == "accepted":
                event["recipients"] = [one["mailbox"] for one in recipients.get(row["message"], [])]
                event["deliveries"] = [one["id"] for one in recipients.get(row["message"], [])]
                event["credential"] = senders.get(row["message"])
            found.append(event)
        return found

    def check(self, sink: Recorder, client_log: Path, grace_seconds: float = 10.0) -> Report:
        """Judge P1-P6 with what the console knows."""
        account = self.rows("SELECT account FROM mail_message WHERE credential != '' LIMIT 1")[0]["account"]
        client = [json.loads(line) | {"account": account} for line in client_log.read_text().splitlines()]
        return check(client, sink.received(), self.console_events(), self.queue(), self.kill_times, grace_seconds)

    def queue(self) -> list[dict[str, Any]]:
        """Give every queued delivery."""
        text = self.command("queue", "list", "--json", "--data", str(self.folder)).strip()
        return [json.loads(line) for line in text.splitlines()]

    def command(self, *words: str, check: bool = True, stdin: str = "") -> str:
        """Run `postbud WORDS` with this product's settings; give its standard output."""
        done = subprocess.run(
            [str(POSTBUD), *words], input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | self.environment,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"postbud {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


class Browser:
    """A client of the pages with cookies, without script."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> tuple[int, str]:
        """Get a page; give status and text. Redirects are followed."""
        return self._open(urllib.request.Request(urllib.parse.urljoin(self.url, path)))

    def post(self, path: str, page: str, **fields: str) -> tuple[int, str]:
        """Send a form that stood in a page."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token, page[:2000]
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        url = urllib.parse.urljoin(self.url, path)
        return self._open(urllib.request.Request(url, body, {"Referer": url, "Origin": self.url}))

    def _open(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=20) as answer:
                self.at = answer.url
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def sign_in(self, email: str, password: str) -> str:
        """Sign in; give the page that follows."""
        status, page = self.get("/me/login/")
        assert status == 200, page
        status, page = self.post("/me/login/", page, login=email, password=password)
        assert status == 200, page
        assert "/login" not in self.at, page
        return page


@contextlib.contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Product]:
    """A whole product that runs."""
    product = Product(folder, **options)
    try:
        product.start()
        yield product
    finally:
        product.close()
