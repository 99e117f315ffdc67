"""Every address of the pages declares who may call it, and keeps to it: walked through the resolver, none is forgotten."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern

from postbud.console.accounts import membership
from postbud.console.accounts.identity import add_evidence, submit_identity
from postbud.console.accounts.models import Account, AuditHead, Person
from postbud.console.accounts.permissions import FOREIGN_ROUTES, PERMISSIONS, Access, Permission, access_of
from postbud.console.api.services import create_key
from postbud.console.configuration import current
from postbud.console.domains.services import add_domain
from postbud.console.founding import ensure_installation
from postbud.console.hooks import services as hooks
from postbud.console.link.content import ContentStore
from postbud.console.mail.ingest import ingest
from postbud.console.mail.services import keep_view
from postbud.console.servers.services import create_credential
from tests.console import permission_page
from tests.console.link_server import AT, Relay
from tests.console.making import CONSOLE, browser_of, make_account, make_member, make_person, make_server

_NAMED = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")


ROUTES = list(permission_page.patterns())
OURS = [(path, access) for path, pattern in ROUTES if (access := access_of(pattern.callback)) is not None]
OF_ACCOUNTS = [(path, access) for path, access in OURS if access.scope == "account"]


def test_every_address_declares_who_may_call_it() -> None:
    silent = [
        path
        for path, pattern in ROUTES
        if access_of(pattern.callback) is None and not (_is_foreign(pattern) and pattern.name in FOREIGN_ROUTES)
    ]
    assert silent == []


def _is_foreign(pattern: URLPattern) -> bool:
    return pattern.callback.__module__.startswith("allauth.")


def test_what_is_listed_of_others_exists() -> None:
    there = {pattern.name for _, pattern in ROUTES if _is_foreign(pattern)}
    assert set(FOREIGN_ROUTES) - there <= {"account_signup", "mfa_trust", "account_inactive"}


def test_every_address_below_an_account_is_of_its_members_only() -> None:
    assert [path for path, access in OURS if "<str:account_id>" in path and access.scope != "account"] == []
    assert [path for path, _ in OF_ACCOUNTS if not path.startswith("a/<str:account_id>/")] == []


def test_the_page_of_permissions_says_what_is_declared() -> None:
    assert permission_page.PAGE.read_text("utf-8") == permission_page.page(), (
        "`python -m tests.console.permission_page --write` writes it"
    )


class World:
    """Two accounts with a real object of each kind; everything in `foreign` belongs to the other one."""

    def __init__(self) -> None:
        ensure_installation()
        self.ane = make_person("ane@acme.example")
        self.acme = make_account("Acme", owner=self.ane)
        self.bo = make_person("bo@other.example")
        self.other = make_account("Other", owner=self.bo)
        self.own, self.foreign = (
            self._objects(number, account, person)
            for number, (account, person) in enumerate(((self.acme, self.ane), (self.other, self.bo)), 1)
        )

    @staticmethod
    def _identity(account: Account) -> dict[str, str]:
        submit_identity(
            CONSOLE, account.id, legal_name=f"{account.name} ApS", street="Vej 1", postcode="8000", city="Aarhus", country="DK",
            mailbox="post@x.example",
        )  # fmt: skip
        add_evidence(CONSOLE, account.id, "extract.pdf", b"%PDF-1.4 " + account.id.encode())
        return {}

    def _objects(self, number: int, account: Account, person: Person) -> dict[str, str]:
        server = make_server(account)
        credential, _ = create_credential(CONSOLE, account.id, server.id, kind="smtp", name="Printer")
        invitation, token = membership.invite(CONSOLE, account.id, f"guest@{account.name.lower()}.example", "viewer")
        endpoint, _ = hooks.create_endpoint(CONSOLE, account.id, f"https://{account.name.lower()}.example.com/", [], AT)
        relay = Relay(number, account.id)
        accepted = relay.accepted(server=server.id, credential=credential.id)
        ingest(relay.batch(accepted))
        ContentStore(current().folder / "content").put(account.id, server.id, accepted.message, b"Subject: x\r\n\r\nHello", AT)
        hook = hooks.send_test(CONSOLE, account.id, endpoint.id, AT)
        return {
            "account_id": account.id,
            "server_id": server.id,
            "credential_id": credential.id,
            "key_id": create_key(CONSOLE, account.id, "Program", [], frozenset(Permission))[0].id,
            "domain_id": add_domain(CONSOLE, account.id, f"{account.name.lower()}.example").id,
            "person_id": person.id,
            **self._identity(account),
            "invitation_id": invitation.id,
            "message_id": accepted.message,
            "endpoint_id": endpoint.id,
            "hook_id": str(hook.pk),
            "view_id": keep_view(CONSOLE, account.id, person.id, "Bounces", "state=bounced").id,
            "token": token,
        }


@pytest.fixture
def world(database: str) -> World:
    return World()


def address(path: str, names: dict[str, str]) -> str:
    return "/" + _NAMED.sub(lambda match: names.get(match[1], "1"), path.removesuffix("\\Z").removesuffix("$"))


def call(client: Client, path: str, names: dict[str, str], method: str) -> tuple[int, str, str]:
    """Give status, body without what differs by nature, and where it leads."""
    session = client.session
    if session.pop("_messages", None):  # what an earlier call left to be shown
        session.save()
    response = client.generic(method, address(path, names), data="", content_type="application/x-www-form-urlencoded")
    body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
    text = body.decode()
    text = re.sub(
        r'value="[A-Za-z0-9]{64}"|"X-CSRFToken": "[^"]*"|<script.*?</script>|<time .*?</time>', "", text, flags=re.DOTALL
    )
    text = text.replace(address(path, names), "PATH")
    for value in sorted(names.values(), key=len, reverse=True):
        if len(value) > 10:
            text = text.replace(value, "ID")
    return response.status_code, text, response.headers.get("Location", "")


@pytest.mark.row("I6")
def test_another_accounts_addresses_answer_as_if_there_were_nothing(world: World) -> None:
    client = browser_of(world.ane)
    nothing = {**world.foreign, "account_id": "acct_06h125sbk0000000000nobody0"}
    wrong = []
    for path, access in OF_ACCOUNTS:
        for method in ("GET", "POST", "DELETE"):
            foreign = call(client, path, world.foreign, method)
            if foreign[0] != 404 or foreign != call(client, path, nothing, method):
                wrong.append((path, method, foreign[0], access))
    assert wrong == []


@pytest.mark.row("I6")
def test_another_accounts_objects_below_ones_own_answer_as_if_there_were_nothing(world: World) -> None:
    client = browser_of(world.ane)
    untouched = AuditHead.objects.get(account=world.other.id).number
    wrong = []
    for path, access in OF_ACCOUNTS:
        named = set(_NAMED.findall(path)) - {"account_id"}
        for names in [{name} for name in sorted(named)] + ([named] if len(named) > 1 else []):
            foreign = {**world.own, **{name: world.foreign[name] for name in names}}
            unknown = {**world.own, **{name: _never(world.foreign[name]) for name in names}}
            for method in access.methods:
                one, other = call(client, path, foreign, method), call(client, path, unknown, method)
                if one != other or (one[0] != 404 and path not in ALIKE_BUT_NOT_404):
                    wrong.append((path, sorted(names), method, one[0], other[0]))
    assert wrong == []
    assert AuditHead.objects.get(account=world.other.id).number == untouched


ALIKE_BUT_NOT_404 = {
    # a refusal, shown on the list of people: the same whoever the person is
    "a/<str:account_id>/people/<str:person_id>/role/",
    "a/<str:account_id>/people/<str:person_id>/remove/",
    "a/<str:account_id>/invitations/<str:invitation_id>/withdraw/",
    "a/<str:account_id>/api-keys/<str:key_id>/revoke/",
    # "not in the log yet": a test's message comes there after it was taken
    "a/<str:account_id>/credentials/<str:credential_id>/test/<str:message_id>/",
}


def _never(value: str) -> str:
    """Give an id of the same form that never was."""
    return "987654321" if value.isdecimal() else value[:-6] + "nobody"


@pytest.mark.row("I6")
def test_ones_own_objects_are_there(world: World) -> None:
    client = browser_of(world.ane)
    missing = [
        path for path, access in OF_ACCOUNTS if "GET" in access.methods and call(client, path, world.own, "GET")[0] != 200
    ]
    assert missing == []  # or the tests above would prove nothing


@pytest.mark.row("I6")
@pytest.mark.parametrize("field", ["server", "credential", "after", "before", "waiting", "cursor"])
def test_a_foreign_id_in_a_query_finds_what_an_unknown_one_finds(world: World, field: str) -> None:
    client = browser_of(world.ane)
    for value in (world.foreign.get(f"{field}_id", world.foreign["message_id"]), world.other.id):
        for page in ("", "newer/"):
            texts = []
            for one in (value, _never(value)):
                answer = client.get(f"/a/{world.acme.id}/messages/{page}", {field: one})
                text = re.sub(
                    r'"X-CSRFToken": "[^"]*"|value="[A-Za-z0-9]{64}"|<time [^>]*>[^<]*</time>', "", answer.content.decode()
                )
                texts.append((answer.status_code, text.replace(one, "ID")))
            assert texts[0] == texts[1], (field, page)
            assert world.foreign["message_id"] not in texts[0][1]


def test_who_is_not_signed_in_is_led_to_sign_in_whatever_the_address(world: World) -> None:
    client = browser_of(None)
    for path, access in OURS:
        if access.scope in ("public", "key"):  # with a key: tests/console/test_api.py
            continue
        status, _, where = call(client, path, world.own, access.methods[0])
        assert (status, where.partition("?")[0]) == (302, "/me/login/"), path


def test_what_is_for_operators_is_nothing_to_others(world: World) -> None:
    client = browser_of(world.ane)
    for path, access in OURS:
        if access.scope == "operator":
            assert call(client, path, world.own, access.methods[0])[0] == 404, path


@pytest.mark.row("J9")
def test_what_changes_something_does_not_listen_to_get(world: World) -> None:
    client = browser_of(world.ane)
    changing = [(path, access) for path, access in OF_ACCOUNTS if access.methods == ("POST",)]
    assert changing
    for path, _ in changing:
        assert call(client, path, world.own, "GET")[0] == 405, path
        assert call(client, path, world.own, "HEAD")[0] == 405, path


@pytest.mark.parametrize("role", ["viewer", "developer", "admin", "owner"])
def test_a_role_may_do_what_it_holds_and_no_more(world: World, role: str) -> None:
    client = browser_of(make_member(world.acme, role, f"{role}@acme.example"))
    for path, access in OF_ACCOUNTS:
        allowed = _allowed(access, PERMISSIONS[role])
        status, _, _ = call(client, path, world.own, "OPTIONS")  # declared for nothing: 405 comes after who
        assert status == (405 if allowed else 403), (path, role)


def _allowed(access: Access, held: Any) -> bool:
    return access.permission in held
