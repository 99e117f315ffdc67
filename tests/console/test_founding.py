"""What a first start makes, that a second one changes nothing, and mail of our own."""

import json
import stat
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
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


class Relay:
    """A relay that knows one login."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return self.refuse
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 taken"


@pytest.fixture
def relay(database: str, configure: Any) -> Iterator[Relay]:
    ensure_installation()
    login = notices.read_login()
    handler, port = Relay(), free_port()

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> AuthResult:
        return AuthResult(success=(data.login.decode(), data.password.decode()) == (login.username, login.secret))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is on loopback
        controller = Controller(
            handler, hostname="127.0.0.1", port=port, authenticator=authenticate, auth_required=True, auth_require_tls=False
        )
        controller.start()
    configure(system_smtp=f"127.0.0.1:{port}")
    try:
        yield handler
    finally:
        controller.stop()


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
