"""The replica: who owns a domain, who an address belongs to, and what cannot stand in one directory."""

from ipaddress import ip_network

import pytest

from postbud.link.replica import Directory, Replica
from postbud.link.secret import hash_secret, verify_secret
from postbud.model.account import Account, Credential, Domain, Kind, Server, Status
from postbud.model.ids import AccountId, CredentialId, ServerId


def account(
    name: str,
    *domains: str,
    networks: tuple[str, ...] = (),
    username: str | None = None,
    status: Status = Status.ACTIVE,
    server_status: Status = Status.ACTIVE,
    credential_status: Status = Status.ACTIVE,
) -> Account:
    credential = Credential(
        id=CredentialId(f"crd_{name}"),
        username=username,
        secret_hash=hash_secret(b"a-secret-of-a-test-" + name.encode(), b"salt") if username else None,
        networks=tuple(map(ip_network, networks)),
        status=credential_status,
    )
    server = Server(id=ServerId(f"srv_{name}"), kind=Kind.TRANSACTIONAL, credentials=(credential,), status=server_status)
    return Account(
        id=AccountId(f"acct_{name}"), name=name, status=status, domains=tuple(map(Domain, domains)), servers=(server,)
    )


def covering(directory: Directory, name: str, domain: str) -> str | None:
    found = directory.covering(AccountId(f"acct_{name}"), domain)
    return found.name if found is not None else None


def test_the_deepest_verified_domain_decides_who_may_send_from_it() -> None:
    directory = Directory.of([account("a", "example.org"), account("b", "mail.example.org")])
    assert covering(directory, "a", "example.org") == "example.org"
    assert covering(directory, "a", "shop.example.org") == "example.org"
    assert covering(directory, "b", "x.mail.example.org") == "mail.example.org"
    assert covering(directory, "a", "mail.example.org") is None
    assert covering(directory, "a", "x.mail.example.org") is None
    assert covering(directory, "b", "example.org") is None
    assert covering(directory, "a", "notexample.org") is None
    assert covering(directory, "a", "org") is None


def test_two_accounts_may_verify_one_domain_each_with_keys_of_its_own() -> None:
    directory = Directory.of([account("a", "example.org"), account("b", "example.org"), account("c", "org.example")])
    assert covering(directory, "a", "x.example.org") == covering(directory, "b", "x.example.org") == "example.org"
    assert covering(directory, "c", "example.org") is None


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("192.0.2.0/24", "192.0.2.7/32"),
        ("192.0.2.7/32", "192.0.2.0/24"),
        ("192.0.2.7/32", "192.0.2.7/32"),
        ("2001:db8::/56", "2001:db8::1/128"),
    ],
)
def test_a_network_that_overlaps_another_accounts_is_refused(mine: str, theirs: str) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        Directory.of([account("a", networks=(mine,)), account("b", networks=(theirs,))])


def test_an_overlap_is_found_behind_narrower_networks_of_ones_own() -> None:
    with pytest.raises(ValueError, match="overlaps"):
        Directory.of([account("a", networks=("192.0.2.0/24", "192.0.2.0/30")), account("b", networks=("192.0.2.9/32",))])


def test_networks_that_only_touch_are_fine() -> None:
    directory = Directory.of([account("a", networks=("192.0.2.0/25",)), account("b", networks=("192.0.2.128/25",))])
    for address, owner in (("192.0.2.127", "acct_a"), ("192.0.2.128", "acct_b")):
        grant = directory.identify(address)
        assert grant is not None
        assert grant.account.id == owner
    assert directory.identify("192.0.3.1") is None


def test_an_ipv4_client_on_an_ipv6_socket_is_the_same_client() -> None:
    directory = Directory.of([account("a", networks=("192.0.2.7/32", "198.51.100.0/24", "2001:db8::/64"))])
    for address in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:198.51.100.9", "2001:db8::9", "2001:db8::9%eth0"):
        assert directory.identify(address) is not None, address
    for address in ("::192.0.2.7", "::ffff:192.0.2.8", "2001:db8:0:1::9", "no address", ""):
        assert directory.identify(address) is None, address


def test_the_narrowest_network_decides_within_an_account() -> None:
    wide, narrow = (
        Credential(id=CredentialId(name), networks=(ip_network(network),))
        for name, network in (("crd_wide", "192.0.2.0/24"), ("crd_narrow", "192.0.2.0/30"))
    )
    server = Server(id=ServerId("srv_1"), kind=Kind.TRANSACTIONAL, credentials=(wide, narrow))
    directory = Directory.of([Account(id=AccountId("acct_1"), name="", servers=(server,))])
    for address, credential in (("192.0.2.2", "crd_narrow"), ("192.0.2.9", "crd_wide")):
        grant = directory.identify(address)
        assert grant is not None
        assert grant.credential.id == credential


@pytest.mark.parametrize("what", ["account", "username", "domain"])
def test_what_stands_twice_is_named(what: str) -> None:
    accounts = {
        "account": [account("a"), account("a")],
        "username": [account("a", username="one"), account("b", username="one")],
        "domain": [account("a", "example.org", "example.org")],
    }[what]
    with pytest.raises(ValueError, match=f"{what} .*stands twice"):
        Directory.of(accounts)


def test_a_username_with_its_secret_is_known_and_no_other() -> None:
    directory = Directory.of([account("a", username="one"), account("b", networks=("192.0.2.7/32",))])
    grant = directory.authenticate("one", b"a-secret-of-a-test-a")
    assert grant is not None
    assert grant.credential.id == "crd_a"
    for username, secret in (("one", b"a-secret-of-a-test-b"), ("one", b""), ("two", b""), ("", b""), ("crd_b", b"")):
        assert directory.authenticate(username, secret) is None
    assert not verify_secret("md5$00$00", b"")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((Status.ACTIVE, Status.ACTIVE, Status.ACTIVE), Status.ACTIVE),
        ((Status.BLOCKED, Status.PAUSED, Status.REVOKED), Status.BLOCKED),
        ((Status.PAUSED, Status.ACTIVE, Status.REVOKED), Status.REVOKED),
        ((Status.ACTIVE, Status.PAUSED, Status.ACTIVE), Status.PAUSED),
        ((Status.ACTIVE, Status.BLOCKED, Status.ACTIVE), Status.BLOCKED),
    ],
)
def test_the_strictest_status_counts(states: tuple[Status, Status, Status], expected: Status) -> None:
    made = account("a", username="one", status=states[0], server_status=states[1], credential_status=states[2])
    grant = Directory.of([made]).grant(CredentialId("crd_a"))
    assert grant is not None
    assert grant.status is expected


def test_queued_mail_of_what_is_gone_waits_or_goes_by_what_is_left() -> None:
    directory = Directory.of([account("a"), account("p", status=Status.PAUSED), account("s", server_status=Status.BLOCKED)])

    def standing(name: str, server: str, credential: str) -> Status:
        return directory.standing(AccountId(f"acct_{name}"), ServerId(server), CredentialId(credential))

    assert standing("gone", "srv_a", "crd_gone") is Status.BLOCKED
    assert standing("a", "srv_gone", "crd_gone") is Status.BLOCKED
    assert standing("a", "srv_a", "crd_gone") is Status.ACTIVE
    assert standing("p", "srv_p", "crd_gone") is Status.PAUSED
    assert standing("s", "srv_s", "crd_gone") is Status.BLOCKED


def test_readers_hear_of_a_new_directory_and_see_it_whole() -> None:
    replica = Replica(Directory.of([account("a")]))
    seen: list[list[str]] = []
    replica.on_change(lambda: seen.append(sorted(replica.directory.accounts)))
    replica.replace(Directory.of([account("b"), account("c")]))
    assert seen == [["acct_b", "acct_c"]]
    assert replica.generation == 2


def test_suppressions_of_the_platform_count_for_all_and_of_an_account_for_it_alone() -> None:
    directory = Directory.of(
        [account("a"), account("b")],
        suppressed=frozenset({"all@example.org"}),
        suppressed_by_account={AccountId("acct_a"): frozenset({"one@example.org"})},
    )
    assert directory.is_suppressed(AccountId("acct_b"), "all@example.org")
    assert directory.is_suppressed(AccountId("acct_a"), "one@example.org")
    assert not directory.is_suppressed(AccountId("acct_b"), "one@example.org")
