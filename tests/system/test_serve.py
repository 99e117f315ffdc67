"""`postbud serve --demo` whole: mail shows in the console, a no reaches open sessions, what dies comes back."""

import contextlib
import os
import shutil
import signal
import subprocess
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postbud.model.ids import to_octets
from tests.system.harness import POSTBUD, wait_until
from tests.system.product import Browser, Product, serving
from tests.system.smtp import Wire, content_digest, make_content, new_test_id, plain, queued_id

pytestmark = pytest.mark.timeout(240)
REFUSED_SECONDS = 1.0  # the design's; a test fails only beyond ten times that


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with serving(tmp_path_factory.mktemp("serve") / "demo") as running:
        yield running


def send(product: Product, recipient: str, kind: str = "transactional") -> tuple[str, bytes]:
    """Send one message by SMTP; give its id and content."""
    server = product.server(kind)
    content = make_content(new_test_id(), sender=f"printer@{server['domain']}", recipient=recipient)
    with product.session(kind) as wire:
        wire.expect(f"MAIL FROM:<printer@{server['domain']}>", 250)
        wire.expect(f"RCPT TO:<{recipient}>", 250)
        return queued_id(wire.data(content)), content


def test_demo_json_holds_what_was_printed(product: Product) -> None:
    noted = product.noted
    assert set(noted) == {"smtp", "api_url", "console_url", "inbound", "catcher", "operator", "customer", "servers"}
    assert noted["smtp"] == {
        "host": "127.0.0.1", "port": product.ports["cleartext"], "tls_port": product.ports["implicit"],
    }  # fmt: skip
    assert noted["api_url"] == f"http://127.0.0.1:{product.ports['api']}"
    assert [server["kind"] for server in noted["servers"]] == ["transactional", "marketing", "sandbox"]
    assert all(set(server) == {"id", "kind", "domain", "username", "secret", "api_key"} for server in noted["servers"])
    said = product.log_path.read_text()
    wait_until(lambda: "swaks --server" in product.log_path.read_text(), "it says welcome")
    for words in (noted["console_url"], noted["customer"]["password"], noted["operator"]["password"], "smtplib", "curl "):
        assert words in product.log_path.read_text(), said


@pytest.mark.parametrize("tool", ["swaks", "python3", "curl"])
def test_every_line_that_the_demo_prints_sends_a_mail_that_arrives(product: Product, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    wait_until(lambda: "Stop with Ctrl-C" in product.log_path.read_text(), "it says welcome")
    said = textwrap.dedent(product.log_path.read_text().partition("watch it arrive under Messages:\n")[2])
    (script,) = [part for part in said.split("\n\n") if part.strip().startswith(tool)]
    delivered = "SELECT message FROM mail_delivery WHERE mailbox = 'you@example.net' AND state = 'delivered'"
    before = len(product.rows(delivered))
    done = subprocess.run(
        ["bash", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: len(product.rows(delivered)) > before, f"what {tool} sent is delivered", 20)


def test_a_message_shows_in_the_console_within_seconds(product: Product) -> None:
    began = time.monotonic()
    message, content = send(product, "you@example.net")
    (delivery,) = product.wait_state(message, "delivered")
    print(f"delivered in the console after {time.monotonic() - began:.2f} s")
    assert delivery["mailbox"] == "you@example.net"
    assert delivery["server"] == product.server()["id"]
    caught = [one for one in product.caught() if one["recipients"] == ["you@example.net"]]
    assert set(caught[0]) >= {"id", "sender", "recipients", "subject"}
    with urllib.request.urlopen(f"{product.noted['catcher']['url']}/messages/{caught[0]['id']}.eml", timeout=10) as answer:
        raw = answer.read()
    assert content_digest(raw) == content_digest(content)
    assert b"DKIM-Signature:" in raw


def test_a_sandbox_captures_and_never_delivers(product: Product) -> None:
    message, _ = send(product, "trial@example.net", "sandbox")
    product.wait_state(message, "captured")
    assert not [one for one in product.caught() if "trial@example.net" in one["recipients"]]


def test_a_message_by_the_api_shows_too(product: Product) -> None:
    domain = product.server()["domain"]
    status, answer = product.api(
        "POST", "/v1/messages", {"from": f"printer@{domain}", "to": ["api@example.net"], "subject": "Hello", "text": "Hi."}
    )
    assert status in (200, 201, 202), answer
    product.wait_state(answer["id"], "delivered")


def test_the_world_behind_the_catcher_answers_in_the_log(product: Product) -> None:
    gone, _ = send(product, "nobody@gone.example")
    grey, _ = send(product, "somebody@grey.example")
    late, _ = send(product, "nobody@late.example")
    (delivery,) = product.wait_state(gone, "bounced")
    assert (delivery["reply_code"], delivery["enhanced"]) == (550, "5.1.1")
    (delivery,) = product.wait_state(grey, "deferred")
    assert delivery["reply_code"] == 451
    product.wait_state(late, "delivered")
    wait_until(lambda: product.deliveries(late)[0]["returned"], "the late bounce comes back", 30)
    product.wait_state(grey, "delivered", 60)


def test_pages_answer_and_somebody_signs_in(product: Product) -> None:
    for who in ("customer", "operator"):
        browser = product.browser(who)
        status, page = browser.get("/")
        assert status == 200
        assert "demo" in page.lower()  # visibly marked


def test_a_notice_to_a_person_goes_by_our_own_relay(product: Product) -> None:
    email = product.noted["customer"]["email"]
    browser = Browser(product.noted["console_url"])
    _, page = browser.get("/me/password/reset/")
    status, page = browser.post("/me/password/reset/", page, email=email)
    assert status == 200, page

    def arrived() -> list[dict[str, Any]]:
        return [one for one in product.caught() if email in one["recipients"]]

    (notice,) = wait_until(arrived, "the notice is caught", 120)
    with urllib.request.urlopen(f"{product.noted['catcher']['url']}/messages/{notice['id']}.eml", timeout=10) as answer:
        raw = answer.read()
    assert b"d=relay.example" in raw  # signed by acct_system's own domain
    assert product.noted["console_url"].encode() in raw.replace(b"=\r\n", b"")


def test_health_and_metrics_tell_of_every_program(product: Product) -> None:
    health = product.health()
    assert set(health["programs"]) == {"link", "pages", "jobs", "catcher", "worker-0", "worker-1"}
    assert all(program["ready"] for program in health["programs"].values())
    assert "\npostbud_programs_ready 6.0\n" in product.metrics()
    node = wait_until(lambda: product.rows("SELECT * FROM link_node"), "the node told its state", 20)
    assert node[0]["name"] == "relay.example"


# -- no, at once, everywhere -----------------------------------------------------------------------------------------------


class Watch:
    """When a change is in the database, and when each worker says no, on sessions that were open before."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.sessions: dict[str, Wire] = {}
        self.committed_at: float | None = None

    def open(self) -> None:
        """Open sessions until every worker has one; the message's id tells whose it is."""
        server = self.product.server()
        spools: dict[str, Wire] = {}
        for _ in range(60):
            if len(spools) == len(self.product.workers()):
                break
            wire = Wire(self.product.ports["cleartext"])
            wire.hello()
            wire.expect(f"AUTH PLAIN {plain(server['username'], server['secret'])}", 235)
            wire.expect(f"MAIL FROM:<printer@{server['domain']}>", 250)
            wire.expect("RCPT TO:<watch@example.net>", 250)
            spool = spool_of(queued_id(wire.data(make_content(new_test_id(), sender=f"printer@{server['domain']}"))))
            if spool in spools:
                wire.socket.close()
            else:
                spools[spool] = wire
        self.sessions = spools
        assert len(spools) == len(self.product.workers())

    def after(self, words: list[str], statement: str, *values: object) -> dict[str, float]:
        """Run a command; give the seconds from its commit to each worker's no."""
        domain = self.product.server()["domain"]
        refused: dict[str, float] = {}

        def try_on(spool: str, wire: Wire) -> None:
            deadline = time.monotonic() + 10 * REFUSED_SECONDS + 20
            while time.monotonic() < deadline:
                reply = wire.say(f"MAIL FROM:<printer@{domain}>")
                if reply.code != 250:
                    refused[spool] = time.monotonic()
                    return
                wire.say("RSET")
                time.sleep(0.02)

        def see_commit() -> None:
            unseen_at = time.monotonic()  # it was not there yet: so the seconds told are never too few
            while self.committed_at is None:
                looked_at = time.monotonic()
                if self.product.rows(statement, *values):
                    self.committed_at = unseen_at
                unseen_at = looked_at
                time.sleep(0.01)

        threads = [threading.Thread(target=try_on, args=item, daemon=True) for item in self.sessions.items()]
        threads.append(threading.Thread(target=see_commit, daemon=True))
        for thread in threads:
            thread.start()
        self.product.command(*words, "--data", str(self.product.folder))
        for thread in threads:
            thread.join(40)
        assert self.committed_at is not None
        return {spool: refused[spool] - self.committed_at for spool in self.sessions}

    def close(self) -> None:
        """Close the sessions."""
        for wire in self.sessions.values():
            wire.socket.close()


def spool_of(message: str) -> str:
    """Give the part of an id that names the spool."""
    return to_octets(message)[8:12].hex()


@pytest.fixture
def watch(product: Product) -> Iterator[Watch]:
    watching = Watch(product)
    try:
        yield watching
    finally:
        watching.close()


def account_of(product: Product) -> str:
    return product.rows("SELECT account_id FROM servers_server WHERE id = ?", product.server()["id"])[0]["account_id"]


@pytest.mark.parametrize(
    ("no", "yes", "table"),
    [
        (["account", "pause"], ["account", "resume"], "accounts_account"),
        (["account", "block", "--reference", "AB-1"], ["account", "unblock"], "accounts_account"),
        (["server", "pause"], ["server", "resume"], "servers_server"),
    ],
    ids=["an account paused", "an account blocked", "a server paused"],
)
def test_a_no_reaches_open_sessions_of_every_worker_and_queued_mail(
    product: Product, watch: Watch, no: list[str], yes: list[str], table: str
) -> None:
    identifier = account_of(product) if table == "accounts_account" else product.server()["id"]
    waiting, _ = send(product, "waits@full.example")
    product.wait_state(waiting, "deferred")
    watch.open()
    seconds = watch.after([*no, identifier], f"SELECT 1 FROM {table} WHERE id = ? AND status != 'active'", identifier)
    try:
        print(f"{' '.join(no)}: refused {', '.join(f'{each:.2f} s' for each in seconds.values())} after the commit")
        assert max(seconds.values()) < 10 * REFUSED_SECONDS
        product.wait_state(waiting, "held")
    finally:
        product.command(*yes, identifier, "--data", str(product.folder))

    def lets_in() -> bool:
        with contextlib.suppress(AssertionError, OSError), product.session() as wire:
            return wire.say(f"MAIL FROM:<printer@{product.server()['domain']}>").code == 250
        return False

    wait_until(lets_in, "mail is taken again")
    wait_until(lambda: product.deliveries(waiting)[0]["state"] == "deferred", "queued mail goes on")


def test_a_revoked_credential_is_refused_on_open_sessions_of_every_worker(tmp_path: Path) -> None:
    with serving(tmp_path / "demo") as product:
        watching = Watch(product)
        watching.open()
        username = product.server()["username"]
        (credential,) = product.rows("SELECT id FROM servers_credential WHERE username = ?", username)
        seconds = watching.after(
            ["credential", "revoke", credential["id"]],
            "SELECT 1 FROM servers_credential WHERE id = ? AND status = 'revoked'", credential["id"],
        )  # fmt: skip
        watching.close()
        print(f"credential revoke: refused {', '.join(f'{each:.2f} s' for each in seconds.values())} after the commit")
        assert max(seconds.values()) < 10 * REFUSED_SECONDS
        with Wire(product.ports["cleartext"]) as wire:
            wire.hello()
            assert wire.say(f"AUTH PLAIN {plain(username, product.server()['secret'])}").code == 535


# -- what dies, and in which order all ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["console-pages", "console-link", "console-jobs", "demo-catcher"])
def test_a_program_that_dies_is_started_again_and_mail_does_not_notice(product: Product, program: str) -> None:
    before = product.workers()
    (pid,) = product.pids(program)
    product.kill_program(program)
    message, _ = send(product, "meanwhile@example.net")
    wait_until(lambda: product.pids(program) not in ([], [pid]), f"{program} is started again", 20)
    product.wait_whole()
    product.wait_state(message, "delivered")
    assert product.workers() == before


def test_a_link_that_hangs_is_started_again(product: Product) -> None:
    (pid,) = product.pids("console-link")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: product.pids("console-link") not in ([], [pid]), "the watchdog starts another", 60)
    product.wait_whole()


@pytest.mark.row("12")
def test_sigterm_ends_in_order_and_the_console_knows_all_that_was_sent(tmp_path: Path) -> None:
    with serving(tmp_path / "demo") as product:
        messages = [send(product, f"last-{number}@example.net")[0] for number in range(10)]
        began = time.monotonic()
        assert product.stop() == 0
        print(f"SIGTERM took {time.monotonic() - began:.1f} s")
        known = {row["message"] for row in product.rows("SELECT message FROM mail_delivery")}
        assert set(messages) <= known


def test_a_demo_keeps_its_secrets_at_the_next_start(tmp_path: Path) -> None:
    with serving(tmp_path / "demo") as product:
        before = product.noted
        assert product.stop() == 0
        began = time.monotonic()
        product.start()
        print(f"started again in {time.monotonic() - began:.1f} s")
        assert product.noted == before
        message, _ = send(product, "again@example.net")
        product.wait_state(message, "delivered")


def run(words: list[str], product: Product, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(POSTBUD), *words], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | product.environment, **options,
    )  # fmt: skip


def test_what_must_not_be_served_is_refused_with_a_clear_word(product: Product, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "console.db").touch()
    for words, said in (
        (["serve", "--demo", "--data", str(real)], "not empty and holds no demo"),
        (["serve", "--data", str(product.folder)], "holds a demo"),
        (["serve", "--demo", "--data", str(product.folder)], "another postbud runs"),
        (["serve", "--traffic", "--data", str(real)], "go with --demo"),
        (["restore", "nothing.tar", "--data", str(product.folder)], "another postbud runs as console"),
    ):
        done = run(words, product)
        assert done.returncode == 2, (words, done.stderr)
        assert said in done.stderr, (words, done.stderr)
