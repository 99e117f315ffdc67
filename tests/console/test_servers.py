"""Servers, credentials and domains: what is made, what is refused, what relays are told, and that secrets are nowhere else."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.utils import timezone

from postbud.console.accounts import audit
from postbud.console.accounts import services as accounts
from postbud.console.accounts.models import Account, AuditEntry
from postbud.console.billing.services import create_plan
from postbud.console.domains import services as domains
from postbud.console.domains.models import DkimKey
from postbud.console.installation import unseal_value
from postbud.console.link.models import LinkRecord
from postbud.console.refused import Refused
from postbud.console.servers import services
from postbud.console.servers.models import Credential
from postbud.console.servers.secrets import credential_of_key
from postbud.link.secret import verify_secret
from postbud.mime.dkim import load_key, public_record
from postbud.model.account import Kind, Status
from postbud.model.api_key import read_key
from postbud.model.link import CredentialRecord, DomainRecord, SecretRecord, ServerRecord
from postbud.model.sealed import SealError
from tests.console.making import CONSOLE, actor_for, make_account, make_person, make_server, told

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def acme(database: str) -> Account:
    return make_account()


def relay_view(kind: str, key: str, record: Any) -> Any:
    body = told(kind, key)
    assert body is not None
    return msgspec.json.decode(body, type=record)


def peppers() -> dict[str, bytes]:
    """What a relay opens with the installation key."""
    record = relay_view("secret", "pepper/1", SecretRecord)
    return {"1": unseal_value("pepper/1", record.sealed)}


def device(account: Account, **values: Any) -> tuple[Credential, str]:
    server = account.servers.first() or make_server(account)
    return services.create_credential(CONSOLE, account.id, server.id, **{"kind": "smtp", "name": "Printer", **values})


def view_of(credential: Credential) -> CredentialRecord:
    view: CredentialRecord = relay_view("credential", credential.id, CredentialRecord)
    return view


# -- servers --


def test_a_server_is_told_to_relays_as_it_changes(acme: Account) -> None:
    server = services.create_server(CONSOLE, acme.id, " Office  devices ", "marketing")
    assert relay_view("server", server.id, ServerRecord) == ServerRecord(id=server.id, account=acme.id, purpose=Kind.MARKETING)
    services.update_server(CONSOLE, acme.id, server.id, hourly_cap=100, keep_content=True)
    services.pause_server(CONSOLE, acme.id, server.id)
    services.pause_server(CONSOLE, acme.id, server.id)
    view = relay_view("server", server.id, ServerRecord)
    assert (view.hourly_cap, view.keep_content, view.status) == (100, True, Status.PAUSED)
    services.resume_server(CONSOLE, acme.id, server.id)
    services.update_server(CONSOLE, acme.id, server.id, hourly_cap=None)
    view = relay_view("server", server.id, ServerRecord)
    assert (view.hourly_cap, view.status) == (None, Status.ACTIVE)
    actions = (
        AuditEntry.objects.filter(account=acme.id, object_kind="server").order_by("number").values_list("action", flat=True)
    )
    assert list(actions) == ["server.create", "server.update", "server.pause", "server.resume", "server.update"]


def test_a_name_is_one_servers_of_an_account_and_the_plan_limits_them(acme: Account) -> None:
    make_server(acme, "Office")
    with pytest.raises(Refused) as refused:
        make_server(acme, "Office")
    assert refused.value.field == "name"
    make_server(make_account("Other"), "Office")
    accounts.set_limits(CONSOLE, acme.id, plan=create_plan(CONSOLE, "Small", servers_limit=2).id)
    second = make_server(acme, "Shop")
    with pytest.raises(Refused):
        make_server(acme, "Third")
    with pytest.raises(Refused):
        services.rename_server(CONSOLE, acme.id, second.id, "Office")


@pytest.mark.parametrize(
    "values", [{"hourly_cap": 0}, {"hourly_cap": -1}, {"hourly_cap": 10**12}, {"name": ""}, {"name": "a\nb\0"}]
)
def test_a_value_that_cannot_be_is_refused_at_its_field(acme: Account, values: dict[str, Any]) -> None:
    server = make_server(acme)
    with pytest.raises(Refused) as refused:
        services.update_server(CONSOLE, acme.id, server.id, **values)
    assert refused.value.field in values


def test_another_accounts_server_is_no_server(acme: Account) -> None:
    foreign = make_server(make_account("Other"))
    for no in (services.pause_server, services.resume_server):
        with pytest.raises(Refused):
            no(CONSOLE, acme.id, foreign.id)
    with pytest.raises(Refused):
        services.create_credential(CONSOLE, acme.id, foreign.id, kind="smtp", name="x")


def test_only_operators_choose_where_a_server_sends_from(acme: Account) -> None:
    server = make_server(acme)
    with pytest.raises(Refused):
        services.update_server(actor_for(make_person()), acme.id, server.id, pool="quick")
    services.update_server(CONSOLE, acme.id, server.id, pool="quick")
    assert relay_view("server", server.id, ServerRecord).pool == "quick"


# -- credentials --


def test_a_secret_is_shown_once_and_a_relay_can_verify_it(acme: Account) -> None:
    credential, secret = device(acme, allow_from=["Ane@ACME.example", "@acme.example"], hourly_cap=200, networks=["192.0.2.7"])
    view = view_of(credential)
    assert len(secret) == 25
    assert set(secret) <= set("abcdefghjkmnpqrstuvwxyz23456789")
    assert credential.username is not None
    assert credential.username.startswith("printer-")
    assert (view.username, view.allow_from, view.hourly_cap) == (
        credential.username,
        ("ane@acme.example", "@acme.example"),
        200,
    )
    assert view.secret_hash is not None
    assert verify_secret(view.secret_hash, secret.encode(), peppers())
    assert not verify_secret(view.secret_hash, b"x" + secret.encode(), peppers())
    everything = [*LinkRecord.objects.values_list("body", flat=True), *Credential.objects.values_list("secret_hash", flat=True)]
    assert not any(secret in str(bytes(one) if not isinstance(one, str) else one) for one in everything)
    assert secret not in json.dumps(list(AuditEntry.objects.values_list("after", flat=True)))


def test_rotation_keeps_the_former_secret_until_its_end(acme: Account) -> None:
    credential, first = device(acme)
    before = timezone.now()
    _, second = services.rotate_credential(CONSOLE, acme.id, credential.id, timedelta(hours=1))
    view = view_of(credential)
    assert first != second
    assert view.secret_hash is not None
    assert view.former_hash is not None
    assert verify_secret(view.secret_hash, second.encode(), peppers())
    assert verify_secret(view.former_hash, first.encode(), peppers())
    assert view.former_until is not None
    assert timedelta(minutes=59) < view.former_until - before < timedelta(minutes=61)
    services.rotate_credential(CONSOLE, acme.id, credential.id, timedelta(0))
    assert view_of(credential).former_hash is None
    for overlap in (timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(Refused):
            services.rotate_credential(CONSOLE, acme.id, credential.id, overlap)


def test_what_was_revoked_stays_so(acme: Account) -> None:
    credential, _ = device(acme)
    services.rotate_credential(CONSOLE, acme.id, credential.id, timedelta(hours=1))
    services.revoke_credential(CONSOLE, acme.id, credential.id)
    services.revoke_credential(CONSOLE, acme.id, credential.id)
    view = view_of(credential)
    assert (view.status, view.former_hash) == (Status.REVOKED, None)
    for no in (services.resume_credential, services.pause_credential):
        with pytest.raises(Refused):
            no(CONSOLE, acme.id, credential.id)
    with pytest.raises(Refused):
        services.rotate_credential(CONSOLE, acme.id, credential.id, timedelta(0))
    with pytest.raises(Refused):
        services.update_credential(CONSOLE, acme.id, credential.id, name="x")


def test_an_api_key_is_found_by_its_text_as_long_as_it_may_be_used(acme: Account) -> None:
    credential, key = device(acme, kind="api", name="Shop")
    parts = read_key(key)
    assert parts is not None
    assert parts[0] == credential.id
    assert view_of(credential).api
    assert credential_of_key(key) == credential
    _, second = services.rotate_credential(CONSOLE, acme.id, credential.id, timedelta(hours=1))
    assert credential_of_key(key) == credential_of_key(second) == credential
    Credential.objects.update(former_until=timezone.now() - timedelta(seconds=1))
    assert credential_of_key(key) is None
    for text in ("", "pbk_", key[:-1], second[:-1] + ("0" if second[-1] != "0" else "1"), "x" * 5000):
        assert credential_of_key(text) is None
    services.pause_credential(CONSOLE, acme.id, credential.id)
    assert credential_of_key(second) is None
    services.resume_credential(CONSOLE, acme.id, credential.id)
    accounts.block_account(CONSOLE, acme.id, "PB-1")
    assert credential_of_key(second) is None


@pytest.mark.parametrize(
    "networks",
    [
        [], ["192.0.0.0/23"], ["2001:db8::/48"], ["127.0.0.1"], ["0.0.0.0/0"], ["::/0"], ["192.0.2.7/24"], ["printer"],
        ["224.0.0.1"], ["fe80::1"], [""], ["192.0.2.1"] * 101,
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_a_device_is_refused(acme: Account, networks: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        device(acme, kind="network", networks=networks)
    assert refused.value.field == "networks"


def test_a_network_is_one_credentials_alone(acme: Account) -> None:
    person = actor_for(make_person())
    server = make_server(acme)
    first, secret = services.create_credential(
        person, acme.id, server.id, kind="network", name="Fax", networks=["192.0.2.7", "2001:db8::7"]
    )
    assert (secret, first.username) == ("", None)
    assert view_of(first).networks == ("192.0.2.7/32", "2001:db8::7/128")
    other = make_account("Other")
    for networks in (["192.0.2.7"], ["192.0.2.0/24"], ["2001:db8::/64"], ["198.51.100.1", "192.0.2.7"]):
        with pytest.raises(Refused):
            device(other, kind="network", networks=networks)
    with pytest.raises(Refused):  # more than one address is the operator's to allow
        services.create_credential(person, acme.id, server.id, kind="network", name="Hall", networks=["198.51.100.0/28"])
    device(acme, kind="network", name="Hall", networks=["198.51.100.0/28"])
    with pytest.raises(Refused):
        services.update_credential(CONSOLE, acme.id, first.id, networks=["198.51.100.3"])
    services.revoke_credential(CONSOLE, acme.id, first.id)
    device(other, kind="network", networks=["192.0.2.7"])


@pytest.mark.parametrize("word", ["x", "@", "@x", "a@b@c.example", "ane@acme.example\r\nX: y", "@acme.example\0", "<script>"])
def test_a_sender_that_is_none_is_refused(acme: Account, word: str) -> None:
    with pytest.raises(Refused) as refused:
        device(acme, allow_from=[word])
    assert refused.value.field == "allow_from"


@pytest.mark.parametrize("name", ["Kopimaskine på 2. sal", "🖨", "---", "a" * 120, "O'Brien <x>"])
def test_a_username_is_plain_and_new_whatever_the_name(acme: Account, name: str) -> None:
    usernames = {device(acme, name=name)[0].username for _ in range(3)}
    assert len(usernames) == 3
    for username in usernames:
        assert username is not None
        assert username.isascii()
        assert len(username) <= 32
        assert all(letter.isalnum() or letter == "-" for letter in username)


# -- domains --


def test_a_domain_has_sealed_keys_and_is_told_once_it_is_verified(acme: Account) -> None:
    domain = domains.add_domain(CONSOLE, acme.id, "ACME.Example.")
    assert domain.name == "acme.example"
    key_id = f"{acme.id}/acme.example"
    assert told("domain", key_id) is None
    domains.verify_domain(CONSOLE, acme.id, domain.id)
    view = relay_view("domain", key_id, DomainRecord)
    assert (view.account, view.name, len(view.keys)) == (acme.id, "acme.example", 2)
    algorithms = []
    for sealed in view.keys:
        assert sealed.sealed is not None
        pem = unseal_value(f"{key_id}/{sealed.selector}", sealed.sealed)
        key = load_key(pem)
        algorithms.append(key.algorithm)
        assert DkimKey.objects.get(selector=sealed.selector).public_record == public_record(key)
        with pytest.raises(SealError):
            unseal_value(f"{acme.id}/other.example/{sealed.selector}", sealed.sealed)
        assert load_pem_private_key(pem, None) is not None
    assert algorithms == ["rsa-sha256", "ed25519-sha256"]
    assert not any(b"PRIVATE KEY" in bytes(body) for body in LinkRecord.objects.values_list("body", flat=True))
    domains.rotate_keys(CONSOLE, acme.id, domain.id)
    assert {key.selector for key in relay_view("domain", key_id, DomainRecord).keys}.isdisjoint(
        key.selector for key in view.keys
    )
    domains.lose_domain(CONSOLE, acme.id, domain.id)
    assert told("domain", key_id) is None
    domains.verify_domain(CONSOLE, acme.id, domain.id)
    domains.remove_domain(CONSOLE, acme.id, domain.id)
    assert told("domain", key_id) is None


def test_only_an_operator_verifies_by_word(acme: Account) -> None:
    domain = domains.add_domain(CONSOLE, acme.id, "acme.example")
    with pytest.raises(Refused):
        domains.verify_domain(actor_for(make_person()), acme.id, domain.id)


@pytest.mark.parametrize(
    "name",
    ["", "x", "localhost", "192.0.2.1", "-a.example", "a..example", "a b.example", "a\0.example", "x" * 300, "a@b.example"],
)
def test_what_is_no_domain_is_refused(acme: Account, name: str) -> None:
    with pytest.raises(Refused) as refused:
        domains.add_domain(CONSOLE, acme.id, name)
    assert refused.value.field == "name"


def test_our_own_domains_are_nobody_elses(acme: Account, configure: Any) -> None:
    configure(hostname="post.example", bounce_domain="bounces.example")
    for name in ("post.example", "x.post.example", "bounces.example"):
        with pytest.raises(Refused):
            domains.add_domain(CONSOLE, acme.id, name)
    domains.add_domain(CONSOLE, acme.id, "example.com")


def test_several_accounts_may_have_one_domain_each_with_its_own_selectors(acme: Account) -> None:
    other = make_account("Other")
    first, second = (domains.add_domain(CONSOLE, account.id, "acme.example") for account in (acme, other))
    assert {key.selector for key in first.keys.all()}.isdisjoint(key.selector for key in second.keys.all())
    with pytest.raises(Refused):
        domains.add_domain(CONSOLE, acme.id, "acme.example")
    assert audit.verify_chain(acme.id) == []
