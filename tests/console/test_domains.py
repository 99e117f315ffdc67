"""A domain's life against a local DNS server: added, published as pasted, verified, broken, warned of, lost, back again."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from postbud.console.accounts import audit
from postbud.console.accounts.membership import add_member
from postbud.console.accounts.models import Account, AuditEntry
from postbud.console.domains import checking, services
from postbud.console.domains.looking import MISSING, PRESENT, UNKNOWN, WRONG, Sight
from postbud.console.domains.models import Domain, DomainStatus, KeyStatus
from postbud.console.domains.records import Purpose, relative_name, zone_file
from postbud.console.refused import Refused
from postbud.link.replica import Directory
from postbud.model.account import Account as Owner
from postbud.model.account import Domain as Verified
from postbud.model.account import Status
from postbud.model.ids import AccountId
from postbud.model.link import DomainRecord
from tests.console.making import CONSOLE, browser_of, make_account, make_member, make_person, told
from tests.system.dns_world import World

NOW = timezone.now()
DAY = timedelta(days=1)


@pytest.fixture
def world(configure: Any) -> Iterator[World]:
    with World() as running:
        configure(
            nameservers=[f"127.0.0.1:{running.stub.port}"], dns_networks=["127.0.0.0/8"], bounce_domain="bounce.post.example",
            public_url="https://post.example",
        )  # fmt: skip
        running.delegate("acme.example")
        yield running


@pytest.fixture
def acme(database: str) -> Account:
    return make_account(owner=make_person())


def add(account: Account, name: str = "acme.example") -> Domain:
    return services.add_domain(CONSOLE, account.id, name)


def pasted(domain: Domain) -> str:
    return zone_file([record for record in checking.records_of(domain) if record.purpose is not Purpose.DMARC])


def check(domain: Domain, after: timedelta = timedelta(0)) -> Domain:
    return checking.check(domain.account_id, domain.id, NOW + after)


def states(domain: Domain) -> dict[str, str]:
    sight = checking.sight_of(domain)
    assert sight is not None
    return {seen.name.removesuffix(f".{domain.name}"): seen.state for seen in sight.records}


def published(domain: Domain) -> DomainRecord | None:
    body = told("domain", f"{domain.account_id}/{domain.name}")
    return msgspec.json.decode(body, type=DomainRecord) if body is not None else None


def test_a_domain_from_its_zone_file_to_its_loss_and_back(world: World, acme: Account) -> None:
    domain = check(add(acme))
    assert domain.status == DomainStatus.PENDING
    assert set(states(domain).values()) == {MISSING}
    assert published(domain) is None

    world.paste(pasted(domain))
    domain = check(domain)
    assert domain.status == DomainStatus.VERIFIED
    assert set(states(domain).values()) == {PRESENT}
    record = published(domain)
    assert record is not None
    assert len(record.keys) == 2
    assert record.return_path == "pbr.acme.example"

    world.drop("_postbud.acme.example")
    warned = []
    for hours in range(0, 24 * 8, 6):
        domain = check(domain, timedelta(hours=hours))
        if len(mail.outbox) > len(warned):
            warned.append(hours / 24)
        assert (published(domain) is not None) == (hours < 24 * 7)
    assert warned == [1, 3, 6, 7]
    assert domain.status == DomainStatus.LOST

    world.paste(pasted(domain))
    domain = check(domain, 9 * DAY)
    assert domain.status == DomainStatus.VERIFIED
    assert domain.failing_since is None
    assert published(domain) is not None
    actions = list(
        AuditEntry.objects.filter(account=acme.id, object_id=domain.id).order_by("number").values_list("action", flat=True)
    )
    assert actions == ["domain.add", "domain.verify", "domain.proof", "domain.lose", "domain.verify"]
    assert audit.verify_chain(acme.id) == []


def test_what_comes_back_in_time_was_only_a_warning(world: World, acme: Account) -> None:
    domain = add(acme)
    world.paste(pasted(domain))
    check(domain)
    kept = world.stub.zone[("_postbud.acme.example", "TXT")]
    world.drop("_postbud.acme.example")
    check(domain)
    check(domain, 2 * DAY)
    world.stub.zone[("_postbud.acme.example", "TXT")] = kept
    domain = check(domain, 3 * DAY)
    assert (domain.failing_since, domain.warned_days) == (None, 0)
    world.drop("_postbud.acme.example")
    check(domain, 4 * DAY)
    assert check(domain, 10 * DAY).status == DomainStatus.VERIFIED  # counted anew
    assert check(domain, 11 * DAY).status == DomainStatus.LOST


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "GARBAGE"])
def test_trouble_of_name_servers_takes_nothing_away(world: World, acme: Account, fault: str) -> None:
    domain = add(acme)
    world.paste(pasted(domain))
    check(domain)
    for name, kind in list(world.stub.zone):
        world.stub.zone[(name, kind)] = fault
    domain = check(domain, 30 * DAY)
    assert UNKNOWN in states(domain).values()
    assert domain.status == DomainStatus.VERIFIED
    assert domain.failing_since is None


def test_a_record_with_a_slip_is_shown_with_what_stands_there(world: World, acme: Account) -> None:
    domain = add(acme)
    world.paste(pasted(domain))
    key = domain.keys.get(algorithm="rsa-sha256")
    name = f"{key.selector}._domainkey.acme.example"
    world.stub.zone[(name, "TXT")] = ['"v=DKIM1; k=rsa; p=MIIBIjANBg"']
    domain = check(domain)
    sight = checking.sight_of(domain)
    assert sight is not None
    (seen,) = [one for one in sight.records if one.name == name]
    assert (seen.state, seen.others) == (WRONG, ("v=DKIM1; k=rsa; p=MIIBIjANBg",))
    assert domain.status == DomainStatus.VERIFIED  # the other key is there
    record = published(domain)
    assert record is not None
    assert [one.selector for one in record.keys] == [domain.keys.get(algorithm="ed25519-sha256").selector]


def test_a_key_may_be_written_in_other_ways_that_mean_the_same(world: World, acme: Account) -> None:
    domain = add(acme)
    world.paste(pasted(domain))
    key = domain.keys.get(algorithm="rsa-sha256")
    public = key.public_record.rpartition("p=")[2]
    halves = f'"p={public[:100]}" " {public[100:200]} " "{public[200:]};k=rsa"'
    world.stub.zone[(f"{key.selector}._domainkey.acme.example", "TXT")] = [halves]
    assert states(check(domain))[f"{key.selector}._domainkey"] == PRESENT


def test_two_accounts_prove_one_domain_each_for_itself(world: World, acme: Account) -> None:
    other = make_account("Other", owner=make_person("bo@other.example"))
    first, second = add(acme), add(other)
    world.paste(pasted(first))
    assert check(first).status == DomainStatus.VERIFIED
    assert check(second).status == DomainStatus.PENDING  # another's proof proves nothing
    world.paste(
        zone_file([record for record in checking.records_of(second) if record.purpose in {Purpose.PROOF, Purpose.DKIM}])
    )
    second, first = check(second), check(first)
    assert first.status == second.status == DomainStatus.VERIFIED
    sight = checking.sight_of(second)
    assert sight is not None
    assert not any(one.others for one in sight.records)  # nobody reads the other's proof here
    entry = world.stub.zone[("_postbud.acme.example", "TXT")]
    assert isinstance(entry, list)
    entry[:] = [one for one in entry if checking.proof(first) not in one]
    check(first), check(second)
    assert check(first, 8 * DAY).status == DomainStatus.LOST
    assert check(second, 8 * DAY).status == DomainStatus.VERIFIED


def test_the_deepest_verified_domain_decides_and_its_loss_gives_it_back(world: World, acme: Account) -> None:
    other = make_account("Other", owner=make_person("bo@other.example"))
    parent, child = add(acme), add(other, "shop.acme.example")
    world.paste(pasted(parent))
    world.paste(pasted(child))
    check(parent)

    def owner_of(name: str) -> list[str]:
        told = [record for one in (parent, child) if (record := published(one)) is not None]
        relay = Directory.of(
            Owner(
                AccountId(account.id),
                account.name,
                Status.ACTIVE,
                tuple(Verified(one.name) for one in told if one.account == account.id),
            )
            for account in (acme, other)
        )
        return [account.id for account in (acme, other) if relay.covering(AccountId(account.id), name) is not None]

    assert owner_of("shop.acme.example") == [acme.id]
    check(child)
    assert owner_of("shop.acme.example") == owner_of("a.shop.acme.example") == [other.id]
    assert owner_of("acme.example") == owner_of("x.acme.example") == [acme.id]
    world.drop("_postbud.shop.acme.example")
    check(child)
    check(child, 7 * DAY)
    assert owner_of("shop.acme.example") == [acme.id]


def test_new_keys_sign_once_their_records_are_seen(world: World, acme: Account) -> None:
    domain = add(acme)
    world.paste(pasted(domain))
    check(domain)
    before = {key.selector for key in domain.keys.all()}
    services.rotate_keys(CONSOLE, acme.id, domain.id)
    with pytest.raises(Refused):
        services.rotate_keys(CONSOLE, acme.id, domain.id)
    record = published(check(domain))
    assert record is not None
    assert {key.selector for key in record.keys} == before
    new = domain.keys.filter(status=KeyStatus.PENDING)
    world.paste(zone_file([one for one in checking.records_of(domain) if one.selector in {key.selector for key in new}]))
    domain = check(domain, DAY)
    record = published(domain)
    assert record is not None
    assert {key.selector for key in record.keys}.isdisjoint(before)
    assert {key.selector for key in domain.keys.filter(status=KeyStatus.RETIRED)} == before
    check(domain, 92 * DAY)
    assert domain.keys.filter(status=KeyStatus.RETIRED).count() == 0


def test_an_operators_word_is_not_taken_back_by_dns(world: World, acme: Account) -> None:
    domain = add(acme)
    services.verify_domain(CONSOLE, acme.id, domain.id)
    check(domain)
    assert check(domain, 30 * DAY).status == DomainStatus.VERIFIED
    assert mail.outbox == []
    assert published(domain) is not None


def test_a_domain_is_looked_at_often_until_it_is_there_and_daily_then(world: World, acme: Account) -> None:
    now, domain = timezone.now(), add(acme)
    assert checking.check_due(now + timedelta(minutes=1)) == 1
    assert checking.check_due(now + timedelta(minutes=1)) == 0
    assert checking.check_due(now + timedelta(minutes=4)) == 1
    world.paste(pasted(domain))
    assert checking.check_due(now + timedelta(minutes=8)) == 1
    domain.refresh_from_db()
    assert domain.status == DomainStatus.VERIFIED
    assert checking.check_due(now + timedelta(hours=20)) == 0
    assert checking.check_due(now + timedelta(hours=30)) == 1


def test_dmarc_is_found_by_the_walk_and_the_list_beside_it(world: World, acme: Account) -> None:
    domain = add(acme, "mail.acme.example")
    world.stub.zone[("_dmarc.acme.example", "TXT")] = ['"v=DMARC1; p=reject; sp=quarantine; rua=mailto:d@acme.example; pct=10"']
    sight = checking.sight_of(check(domain))
    assert sight is not None
    assert (sight.dmarc.policy, sight.dmarc.found_at) == ("quarantine", "acme.example")
    assert (sight.dmarc.organizational_domain, sight.dmarc.by_list) == ("acme.example", "acme.example")
    assert sight.dmarc.reports_to == ("mailto:d@acme.example",)
    assert sight.dmarc.removed_tags == ("pct",)
    assert not sight.dmarc.disagree
    assert sight.dmarc.strict == ()
    world.stub.zone[("_dmarc.mail.acme.example", "TXT")] = ['"v=DMARC1; p=none; psd=n; aspf=s"']
    sight = checking.sight_of(check(domain))
    assert sight is not None
    assert (sight.dmarc.organizational_domain, sight.dmarc.by_list) == ("mail.acme.example", "acme.example")
    assert sight.dmarc.disagree
    assert sight.dmarc.strict == ("SPF",)


def test_spf_and_where_answers_go_are_told(world: World, acme: Account) -> None:
    domain = add(acme)

    def sight() -> Sight:
        found = checking.sight_of(check(domain))
        assert found is not None
        return found

    assert (sight().spf, sight().takes_mail) == ((), MISSING)
    world.stub.zone |= {
        ("acme.example", "TXT"): ['"v=spf1 mx -all"', '"v=spf10 x"', '"other"'],
        ("acme.example", "MX"): ["0 ."],
    }
    assert (sight().spf, sight().takes_mail) == (("v=spf1 mx -all",), "null")
    world.stub.zone[("acme.example", "MX")] = ["10 mx.acme.example."]
    assert sight().takes_mail == PRESENT
    assert (sight().zone, sight().hosts) == ("acme.example", ("ns.host.example",))


def test_name_servers_inside_are_not_asked(world: World, acme: Account, configure: Any) -> None:
    configure(dns_networks=[])
    domain = add(acme)
    world.stub.asked.clear()
    check(domain)
    asked = [name for _, name, kind in world.stub.asked if kind == "TXT" and name == "_postbud.acme.example"]
    assert len(asked) == 1  # by the resolver only: 127.0.0.1 is no public address


def test_a_demo_has_no_dns_and_takes_records_as_published(acme: Account, configure: Any) -> None:
    configure(demo=True)
    domain = check(add(acme))
    assert domain.status == DomainStatus.VERIFIED
    assert published(domain) is not None


def test_names_are_given_as_forms_want_them() -> None:
    assert relative_name("_postbud.acme.example", "acme.example") == "_postbud"
    assert relative_name("_postbud.shop.acme.example", "acme.example") == "_postbud.shop"
    assert relative_name("acme.example", "acme.example") == "@"
    assert relative_name("_postbud.acme.example", "") == "_postbud.acme.example"


def test_the_pages_lead_from_adding_to_verified_and_to_new_keys(world: World, acme: Account, client: Client) -> None:
    del client
    browser = browser_of(make_member(acme, "developer", "dev@acme.example"))
    root = f"/a/{acme.id}/domains/"
    assert "Add a domain" in browser.get(root).content.decode()
    assert "no domain" in browser.post(f"{root}new/", {"name": "nonsense"}).content.decode()
    answer = browser.post(f"{root}new/", {"name": "ACME.example"})
    assert answer.status_code == 302
    path = answer["Location"]
    domain = Domain.objects.get(account=acme.id)
    text = browser.get(path).content.decode()
    for record in checking.records_of(domain):
        assert record.value in text
    zone = browser.get(f"{path}zone/").content.decode()
    assert zone == zone_file(checking.records_of(domain))
    assert "_dmarc" not in zone  # it may be there already, and two are worse than one
    assert "Not all needed records" in browser.post(f"{path}check/", follow=True).content.decode()
    world.paste(browser.get(f"{path}zone/").content.decode())
    assert ("_dmarc.acme.example", "TXT") in world.stub.zone
    text = browser.post(f"{path}check/", follow=True).content.decode()
    assert "The records are there" in text
    assert "Verified" in text
    assert browser.post(f"{path}rotate/", follow=True).status_code == 200
    assert "publish those first" in browser.post(f"{path}rotate/", follow=True).content.decode()
    assert browser.post(f"{path}remove/").status_code == 302
    assert not Domain.objects.filter(account=acme.id).exists()
    viewer = browser_of(make_member(acme, "viewer", "view@acme.example"))
    assert viewer.get(root).status_code == 200
    assert viewer.post(f"{root}new/", {"name": "x.example"}).status_code == 403


def test_a_warning_is_in_the_readers_language(world: World, acme: Account) -> None:
    make_member(acme, "developer", "dev@acme.example")
    dane = make_person("dane@acme.example", language="da")
    add_member(CONSOLE, acme.id, dane.id, "admin")
    domain = add(acme)
    world.paste(pasted(domain))
    check(domain)
    world.drop("_postbud.acme.example")
    check(domain)
    check(domain, DAY)
    told = {message.to[0]: message for message in mail.outbox}
    assert set(told) == {"ane@acme.example", "dane@acme.example"}
    assert "proof" in told["ane@acme.example"].subject
    assert "beviset" in told["dane@acme.example"].subject
    assert f"https://post.example/a/{acme.id}/domains/{domain.id}/" in str(told["dane@acme.example"].body)
    assert checking.proof(domain) in str(told["ane@acme.example"].body)
