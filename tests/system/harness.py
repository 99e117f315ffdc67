"""Real processes for black-box tests: a relay in a folder of its own, started, killed and started again on the same data.

Knows the relay only from outside: the `postbud` command, its two files, its ports, `/health`, `data/events/*.jsonl` and
`postbud queue list --json`. Processes are ended by their own ids only.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.ports import free_port
from tests.system.directory import Settings, accounts_toml, postbud_toml, write_keys

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
POSTBUD = Path(sys.executable).with_name("postbud")
os.environ.setdefault("POSTBUD__DOCTOR__EVERY_HOURS", "0")  # by itself a node looks outside of this machine


def wait_until(question: Callable[[], T], what: str, seconds: float = 30.0, every: float = 0.05) -> T:
    """Ask until the answer is true; give it.

    Raises:
        TimeoutError: It stayed false; the text says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}; last answer {answer!r}")
        time.sleep(every)


def json_lines(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Read JSON lines of files in order; a torn last line (its writer was killed) is left out."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    with contextlib.suppress(json.JSONDecodeError):
                        yield json.loads(line)


def children_of(pid: int) -> list[int]:
    """Give the process ids of all children, grandchildren too, that are no zombies."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in map(int, (task / "children").read_text().split()):
                    if not is_zombie(child):
                        found += [child, *children_of(child)]
    return found


def is_zombie(pid: int) -> bool:
    """Tell whether a process is gone or waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def rss_bytes(pid: int) -> int:
    """Give the resident memory of a process, 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


class Relay:
    """One `postbud relay` and its folder."""

    def __init__(
        self, folder: Path, settings: Settings, *, statuses: dict[str, str] | None = None, accounts_extra: str = ""
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.ports = {listener.name: free_port() for listener in settings.listeners}
        self.telemetry_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = folder / "relay.log"
        self._accounts_extra = accounts_extra
        self.kill_times: list[float] = []
        folder.mkdir(parents=True, exist_ok=True)
        write_keys(folder)
        self.write_accounts(statuses)
        self.write_settings()

    def write_accounts(self, statuses: dict[str, str] | None = None) -> None:
        """Write the directory anew, whole at once, as an operator's tool would."""
        temporary = self.folder / "accounts.toml.new"
        temporary.write_text(accounts_toml(statuses, self._accounts_extra))
        temporary.replace(self.folder / "accounts.toml")

    def write_settings(self) -> None:
        """Write postbud.toml from `settings`."""
        (self.folder / "postbud.toml").write_text(postbud_toml(self.settings, self.ports, self.telemetry_port))

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    # --- life ---

    def start(
        self, *, failpoints: str = "", wrapper: tuple[str, ...] = (), env: dict[str, str] | None = None, wait: bool = True
    ) -> None:
        """Start it and wait until it is healthy."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {})
        environment.pop("POSTBUD_FAILPOINTS", None)
        if failpoints:
            environment["POSTBUD_FAILPOINTS"] = failpoints
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, str(POSTBUD), "relay", "--directory", "accounts.toml", "--config", "postbud.toml"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until `/health` says yes and the first listener greets."""

        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the relay ended: {self.log_tail()}")
            return self.is_healthy() and self.greets()

        try:
            wait_until(ready, "the relay is ready", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log_tail()}") from error

    def is_healthy(self) -> bool:
        """Ask /health."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry_port}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def greets(self) -> bool:
        """Tell whether some non-TLS listener says 220."""
        name = next((each.name for each in self.settings.listeners if each.tls != "implicit"), None)
        if name is None:
            return True
        try:
            with socket.create_connection(("127.0.0.1", self.ports[name]), timeout=2) as connection:
                return connection.recv(4) == b"220 "
        except OSError:
            return False

    def metrics(self) -> str:
        """Give the text of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """Give the workers' process ids: the children that listen (not helpers such as a resource tracker)."""
        found = []
        for child in children_of(self.pid):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"resource_tracker" not in command and b"forkserver" not in command:
                    found.append(child)
        return found

    def stop(self, seconds: float = 45.0) -> int:
        """End it by SIGTERM; give the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise TimeoutError(f"SIGTERM did not end the relay in {seconds} s: {self.log_tail()}") from None

    def kill_all(self) -> None:
        """Kill -9 of the supervisor and all its children at once."""
        if self.process is None:
            return
        self.kill_times.append(time.time())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        wait_until(lambda: not self._group_alive(), "all processes of the group are gone", 10)
        self.kill_times.append(time.time())

    def _group_alive(self) -> bool:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid and fields[0] not in "ZX":
                    return True
        return False

    def kill(self, pid: int) -> None:
        """Kill -9 of one process, noted for the invariant checker."""
        self.kill_times.append(time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End what still runs; for fixtures."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(TimeoutError):
                self.stop(20)
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    # --- what it says ---

    def log_tail(self, octets: int = 4000) -> str:
        """Give the end of its log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_bytes()[-octets:].decode("utf-8", "replace")
        return ""

    def event_files(self) -> list[Path]:
        """Give the event files, oldest first."""
        return sorted((self.data / "events").glob("*.jsonl"))

    def events(self, *, settled: bool = True) -> list[dict[str, Any]]:
        """Give all events so far, in file order; `settled` waits until what is committed is shipped, if workers answer."""
        if settled and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(TimeoutError, OSError):
                wait_until(self._has_shipped, "events are shipped", 3)
        return list(json_lines(self.event_files()))

    def _has_shipped(self) -> bool:
        return "\npostbud_events_waiting 0.0\n" in self.metrics()

    def events_of(self, message: str) -> list[dict[str, Any]]:
        """Give one message's events."""
        return [event for event in self.events() if event.get("message") == message]

    def command(self, *words: str, check: bool = True, stdin: str = "") -> str:
        """Run `postbud WORDS` in the relay's folder; give its standard output."""
        done = subprocess.run(
            [str(POSTBUD), *words], cwd=self.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"postbud {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def queue(self) -> list[dict[str, Any]]:
        """Give every queued delivery, as `postbud queue list --json` says."""
        text = self.command("queue", "list", "--json", "--config", "postbud.toml").strip()
        if not text:
            return []
        try:
            answer = json.loads(text)
        except json.JSONDecodeError:
            return [json.loads(line) for line in text.splitlines()]
        return answer if isinstance(answer, list) else [answer]

    def wait_drained(self, seconds: float = 60.0) -> None:
        """Wait until the queue is empty."""
        wait_until(lambda: not self.queue(), "the queue is empty", seconds, every=0.3)

    def wait_final(self, messages: set[str], seconds: float = 60.0) -> None:
        """Wait until every message has as many final events as recipients."""

        def done() -> bool:
            expected: dict[str, int] = {}
            final: dict[str, set[str]] = {}
            for event in self.events(settled=False):
                message = event.get("message")
                if message not in messages:
                    continue
                if event["kind"] == "accepted":
                    expected[message] = len(event["recipients"])
                elif event["kind"] in FINAL_KINDS:
                    final.setdefault(message, set()).add(event["delivery"])
            return all(message in expected and len(final.get(message, ())) >= expected[message] for message in messages)

        wait_until(done, f"{len(messages)} messages are final", seconds, every=0.25)


FINAL_KINDS = frozenset({"delivered", "captured", "bounced", "expired", "cancelled", "suppressed"})


class Recorder:
    """The sink process (`tests.system.recorder`): every message it got, as JSON lines, written before it says 250."""

    def __init__(self, folder: Path, *, port: int | None = None, delay_seconds: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "sink.jsonl"
        self.port = port or free_port()
        self.delay_seconds = delay_seconds
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def next_hop(self) -> str:
        """host:port for a route."""
        return f"127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        """Start it and wait until it listens."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.system.recorder",
                str(self.port),
                str(self.path),
                "--delay",
                str(self.delay_seconds),
                *more,
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: _listens(self.port), "the sink listens", 15)

    def close(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def received(self) -> list[dict[str, Any]]:
        """Give every receipt so far."""
        return list(json_lines([self.path]))

    def wait_for(
        self, question: Callable[[dict[str, Any]], bool], count: int = 1, seconds: float = 30.0
    ) -> list[dict[str, Any]]:
        """Wait for `count` receipts that answer yes; give them."""

        def found() -> list[dict[str, Any]]:
            matching = [record for record in self.received() if question(record)]
            return matching if len(matching) >= count else []

        return wait_until(found, f"{count} receipts at the sink", seconds, every=0.1)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(folder: Path, settings: Settings | None = None, **start: Any) -> Iterator[tuple[Relay, Recorder]]:
    """A recording sink and a relay that routes everything to it."""
    sink = Recorder(folder)
    sink.start()
    settings = settings or Settings()
    settings.next_hop = settings.next_hop or sink.next_hop
    relay = Relay(folder, settings)
    try:
        relay.start(**start)
        yield relay, sink
    finally:
        relay.close()
        sink.close()
