"""DMARC records and the tree walk, by the cases of RFC 9989."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.policy.dmarc import DmarcPolicy, DmarcRecord, discover, parse_record, record_among, targets

NONE, QUARANTINE, REJECT = DmarcPolicy.NONE, DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT


def test_a_record_is_read_with_its_tags() -> None:
    text = (
        "v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=S; psd=n; t=y;"
        " rua=mailto:a@example.com!10m, mailto:b@example.net; x-own=1"
    )
    assert parse_record(text) == DmarcRecord(
        REJECT, QUARANTINE, NONE, strict_dkim=True, strict_spf=True, psd="n", testing=True,
        reports_to=("mailto:a@example.com", "mailto:b@example.net"),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "v=spf1 -all", "v=DMARC12; p=none", "p=none; v=DMARC1", " v=DMARC1; p=none", "v=dmarc1"])
def test_what_does_not_begin_with_the_version_is_no_record(text: str) -> None:
    assert parse_record(text) is None


@pytest.mark.parametrize(
    "text", ["v=DMARC1", "v=DMARC1;", "v = DMARC1 ; p = none", "v=DMARC1; p=nonsense", "v=DMARC1;;;", "V=DMARC1; p=none"]
)
def test_a_record_without_a_policy_asks_for_nothing(text: str) -> None:
    record = parse_record(text)
    assert record is not None
    assert record.policy is NONE


def test_values_that_cannot_be_are_passed_over_and_told() -> None:
    record = parse_record("v=DMARC1; p=maybe; adkim=x; t=1; psd=yes; p=reject; loose; pct=50; ri=1")
    assert record is not None
    assert (record.policy, record.strict_dkim, record.testing, record.psd) == (NONE, False, False, "u")
    assert set(record.flaws) == {"p=maybe", "adkim=x", "t=1", "psd=yes", "p=reject", "loose"}
    assert record.removed_tags == ("pct", "ri")


def test_of_several_records_none_counts() -> None:
    assert record_among(["v=spf1 -all", "v=DMARC1; p=reject"]) == DmarcRecord(REJECT)
    assert record_among(["v=DMARC1; p=reject", "v=DMARC1; p=none"]) is None
    assert record_among([]) is None


def test_a_walk_goes_up_label_by_label_and_leaps_when_there_are_many() -> None:
    assert targets("a.mail.example.com") == ["a.mail.example.com", "mail.example.com", "example.com", "com"]
    assert targets("a.b.c.d.e.f.g.h.i.j.mail.example.com") == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com", "j.mail.example.com",
        "mail.example.com", "example.com", "com",
    ]  # fmt: skip
    assert targets("1.2.3.4.5.6.7.8")[:2] == ["1.2.3.4.5.6.7.8", "2.3.4.5.6.7.8"]
    assert targets("com") == ["com"]


@given(st.lists(st.sampled_from(["a", "b", "mail", "x-1"]), min_size=1, max_size=60))
def test_a_walk_asks_at_most_eight_times_and_ends_at_the_top(labels: list[str]) -> None:
    found = targets(".".join(labels))
    assert len(found) <= 8
    assert found[0] == ".".join(labels)
    assert found[-1] == labels[-1]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("domain", "records", "organizational", "found_at", "policy"),
    [
        # RFC 9989 appendix B: one record at the organizational domain
        ("example.com", {"example.com": "p=reject"}, "example.com", "example.com", REJECT),
        ("mail.example.com", {"example.com": "p=reject"}, "example.com", "example.com", REJECT),
        ("mail.example.com", {"example.com": "p=reject; sp=none"}, "example.com", "example.com", NONE),
        ("a.b.mail.example.com", {"example.com": "p=none; sp=reject"}, "example.com", "example.com", REJECT),
        # a record at the author's domain counts for it; the highest one is the organizational domain's
        ("mail.example.com", {"mail.example.com": "p=none", "example.com": "p=reject"},
         "example.com", "mail.example.com", NONE),
        ("a.mail.example.com", {"mail.example.com": "p=none", "example.com": "p=reject"}, "example.com", "example.com", REJECT),
        # psd=n: the organization begins here, whatever stands above
        ("a.mail.example.com", {"mail.example.com": "p=none; psd=n", "example.com": "p=reject"},
         "mail.example.com", "mail.example.com", NONE),
        # psd=y above: the organizational domain is one below it
        ("www.giant.bank.example", {"bank.example": "p=reject; psd=y", "example": "p=none"},
         "giant.bank.example", "bank.example", REJECT),
        ("www.giant.bank.example", {"giant.bank.example": "p=none", "bank.example": "p=reject; psd=y"},
         "giant.bank.example", "giant.bank.example", NONE),
        ("giant.bank.example", {"bank.example": "p=none; sp=quarantine; psd=y"},
         "giant.bank.example", "bank.example", QUARANTINE),
        # psd=y at the start itself does not make a domain below it
        ("bank.example", {"bank.example": "p=reject; psd=y", "example": "p=none"}, "bank.example", "bank.example", REJECT),
        ("gov.example", {"example": "p=quarantine; psd=y"}, "gov.example", "example", QUARANTINE),
        # nothing anywhere
        ("mail.example.com", {}, "mail.example.com", "", None),
        # a top-level domain's own record, without psd: the rule of the fewest labels
        ("mail.example.com", {"com": "p=reject"}, "com", "com", REJECT),
        # testing: one step milder
        ("example.com", {"example.com": "p=reject; t=y"}, "example.com", "example.com", QUARANTINE),
        ("mail.example.com", {"example.com": "p=none; sp=quarantine; t=y"}, "example.com", "example.com", NONE),
        ("example.com", {"example.com": "p=none; t=y"}, "example.com", "example.com", NONE),
        # more than eight labels: what lies between the leap is not asked
        ("a.b.c.d.e.f.g.mail.example.com", {"b.c.d.e.f.g.mail.example.com": "p=none; psd=n", "example.com": "p=reject"},
         "example.com", "example.com", REJECT),
    ],
)  # fmt: skip
def test_the_organizational_domain_and_its_policy(
    domain: str, records: dict[str, str], organizational: str, found_at: str, policy: DmarcPolicy | None
) -> None:
    read = {name: record for name, text in records.items() if (record := parse_record(f"v=DMARC1; {text}")) is not None}
    assert len(read) == len(records)
    found = discover(domain, read)
    assert (found.organizational_domain, found.found_at, found.policy) == (organizational, found_at, policy)


def test_a_domain_that_does_not_exist_has_a_policy_of_its_own() -> None:
    record = parse_record("v=DMARC1; p=none; sp=quarantine; np=reject")
    assert record is not None
    assert discover("no.example.com", {"example.com": record}, exists=False).policy is REJECT
    assert discover("no.example.com", {"example.com": record}).policy is QUARANTINE
    plain = parse_record("v=DMARC1; p=quarantine")
    assert plain is not None
    assert discover("no.example.com", {"example.com": plain}, exists=False).policy is QUARANTINE
