"""What a first start makes, that a second one changes nothing, and mail of our own."""

import base64
import json
import socketserver
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.test import override_settings
from django.utils import timezone

from postbud.console.accounts import audit, notices
from postbud.console.accounts.models import Account, AuditEntry, Notice
from postbud.console.accounts.services import block_account, close_account, pause_account
from postbud.console.configuration import ConsoleSettings
from postbud.console.founding import ensure_installation
from postbud.console.link.models import LinkRecord
from postbud.console.refused import Refused
from postbud.console.transaction import write
from tests.console.making import CONSOLE
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("database")


def test_a_first_start_makes_what_relays_and_people_need_and_a_second_one_nothing(console: ConsoleSettings) -> None:
    ensure_installation()
    records = dict(LinkRecord.objects.values_list("key", "seq"))
    assert {"pepper/1", "token/1", "unsubscribe/1", "set/platform", "acct_system", "srv_system"} <= set(records)
    login = json.loads((console.folder / "keys" / "system.json").read_bytes())
    assert login["mailbox"] == f"postbud@{console.hostname}"
    entries = AuditEntry.objects.count()
    ensure_installation()
    assert dict(LinkRecord.objects.values_list("key", "seq")) == records
    assert json.loads((console.folder / "keys" / "system.json").read_bytes()) == login
    assert AuditEntry.objects.count() == entries
    assert audit.verify_chain("acct_system") == []
    for path in (console.folder / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lost_login_is_made_anew_and_a_new_hostname_gets_its_domain(console: ConsoleSettings, configure: Any) -> None:
    ensure_installation()
    path = console.folder / "keys" / "system.json"
    first = json.loads(path.read_bytes())
    path.unlink()
    ensure_installation()
    second = json.loads(path.read_bytes())
    assert second["username"] == first["username"]
    assert second["secret"] != first["secret"]
    configure(hostname="post.example")
    ensure_installation()
    third = json.loads(path.read_bytes())
    assert (third["secret"], third["mailbox"]) == (second["secret"], "postbud@post.example")
    assert LinkRecord.objects.filter(kind="domain", key="acct_system/post.example", gone=False).exists()


def test_the_systems_own_account_is_never_stopped() -> None:
    ensure_installation()
    for no in (pause_account, close_account, lambda who, account: block_account(who, account, "PB-1")):
        with pytest.raises(Refused):
            no(CONSOLE, "acct_system")
    assert Account.objects.get(id="acct_system").status == "active"


# -- notices --


class Relay(socketserver.ThreadingTCPServer):
    """A relay that knows one login, and refuses content when told to."""

    allow_reuse_address = True
    daemon_threads = False  # closing waits for them: nothing is left open

    def __init__(self, login: notices.SystemLogin) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.login = base64.b64encode(f"\0{login.username}\0{login.secret}".encode())
        self.taken: list[tuple[str, list[str], bytes]] = []
        self.refuse = ""


class Session(socketserver.StreamRequestHandler):
    """One connection, as far as our own client goes."""

    timeout = 60

    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        known, sender, recipients = False, "", []
        self._say("220 relay.example ESMTP")
        while line := self.rfile.readline().rstrip(b"\r\n"):
            verb, _, rest = line.partition(b" ")
            match verb.upper():
                case b"EHLO":
                    self._say("250-relay.example\r\n250-AUTH PLAIN\r\n250 8BITMIME")
                case b"AUTH":
                    known = rest == b"PLAIN " + relay.login
                    self._say("235 2.7.0 known" if known else "535 5.7.8 unknown")
                case b"MAIL" if known:
                    sender, recipients = rest.partition(b"<")[2].partition(b">")[0].decode(), []
                    self._say("250 2.1.0 ok")
                case b"RCPT" if known:
                    recipients.append(rest.partition(b"<")[2].partition(b">")[0].decode())
                    self._say("250 2.1.5 ok")
                case b"DATA" if known:
                    self._say("354 go on")
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    if not relay.refuse:
                        relay.taken.append((sender, recipients, content))
                    self._say(relay.refuse or "250 2.0.0 taken")
                case b"RSET" | b"QUIT":
                    self._say("221 2.0.0 bye" if verb.upper() == b"QUIT" else "250 2.0.0 ok")
                case _:
                    self._say("530 5.7.0 who are you")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def relay(database: str, configure: Any) -> Iterator[Relay]:
    ensure_installation()
    server = Relay(notices.read_login())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    configure(system_smtp=f"127.0.0.1:{server.server_address[1]}")
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def own_backend(database: str) -> Iterator[None]:
    with override_settings(EMAIL_BACKEND="postbud.console.accounts.notices.SystemMailBackend"):
        yield


def ask(subject: str = "Hello") -> None:
    EmailMessage(subject=subject, body="Your link: https://secret.example/", to=["ane@acme.example"]).send()


@pytest.mark.usefixtures("own_backend")
def test_a_notice_waits_sealed_and_goes_by_our_own_relay(relay: Relay) -> None:
    ask("Hej, Ane æøå")
    row = Notice.objects.get()
    assert b"secret.example" not in bytes(row.sealed)
    assert notices.send_due(timezone.now()) == 1
    ((sender, recipients, content),) = relay.taken
    assert (sender, recipients) == (notices.read_login().mailbox, ["ane@acme.example"])
    assert b"https://secret.example/" in content
    assert not Notice.objects.exists()
    assert notices.send_due(timezone.now()) == 0


@pytest.mark.usefixtures("own_backend")
def test_a_notice_waits_while_the_relay_is_away_and_is_given_up_in_the_end(relay: Relay) -> None:
    ask()
    now = timezone.now()
    relay.refuse = "451 4.3.0 later"
    assert notices.send_due(now) == 0
    assert notices.send_due(now) == 0  # not due
    relay.refuse = ""
    assert notices.send_due(now + timedelta(hours=1)) == 1
    ask()
    relay.refuse = "451 4.3.0 later"
    for hours in range(60):
        notices.send_due(now + timedelta(hours=hours))
    assert not Notice.objects.exists()


@pytest.mark.usefixtures("own_backend")
def test_a_notice_goes_with_its_transaction_or_not_at_all(relay: Relay) -> None:
    with pytest.raises(ZeroDivisionError), write():  # noqa: PT012
        ask()
        raise ZeroDivisionError
    assert not Notice.objects.exists()


@pytest.mark.usefixtures("own_backend")
def test_without_a_relay_a_notice_waits(configure: Any) -> None:
    ensure_installation()
    configure(system_smtp=f"127.0.0.1:{free_port()}")
    ask()
    assert notices.send_due(timezone.now()) == 0
    assert Notice.objects.get().attempts == 1
