"""Sender identity: written down, looked at, looked at anew when it changes; evidence is sealed and nobody else's."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from postbud.console.accounts import identity
from postbud.console.accounts.models import Account, AuditEntry, IdentityStatus, SenderIdentity
from postbud.console.configuration import current
from postbud.console.refused import Refused
from tests.console.making import CONSOLE, browser_of, make_account, make_member, make_person

GOOD: dict[str, Any] = {
    "legal_name": "Acme ApS", "street": "Havnegade 4", "postcode": "8000", "city": "Aarhus", "country": "DK",
    "register_number": "13585628", "mailbox": "post@acme.example", "phone": "+45 70 10 20 30", "website": "https://acme.example",
    "brands": ["Acme", " Acme ", "Acme Print"],
}  # fmt: skip
PDF = b"%PDF-1.4 extract"


@pytest.fixture
def acme(database: str) -> Account:
    return make_account(owner=make_person())


def submit(account: Account, **changes: Any) -> SenderIdentity:
    return identity.submit_identity(CONSOLE, account.id, **{**GOOD, **changes})


def test_an_identity_is_submitted_judged_and_looked_at_anew_when_it_changes(acme: Account) -> None:
    assert submit(acme).status == IdentityStatus.SUBMITTED
    assert identity.judge_identity(CONSOLE, acme.id, accepted=True).status == IdentityStatus.VERIFIED
    assert submit(acme).status == IdentityStatus.VERIFIED  # nothing changed
    assert submit(acme, street="Havnegade 5").status == IdentityStatus.SUBMITTED
    with pytest.raises(Refused):
        identity.judge_identity(CONSOLE, acme.id, accepted=False)
    refused = identity.judge_identity(CONSOLE, acme.id, accepted=False, remark="No such street")
    assert (refused.status, refused.remark) == (IdentityStatus.REFUSED, "No such street")
    assert submit(acme, street="Havnegade 5").remark == ""
    identity.judge_identity(CONSOLE, acme.id, accepted=True)
    identity.add_evidence(CONSOLE, acme.id, "new.pdf", PDF)
    found = identity.identity_of(acme.id)
    assert found is not None
    assert (found.status, found.brands) == (IdentityStatus.SUBMITTED, ["Acme", "Acme Print"])
    actions = list(AuditEntry.objects.filter(account=acme.id).order_by("number").values_list("action", flat=True))
    assert actions.count("identity.submit") == 3
    assert {"identity.verify", "identity.refuse", "identity.evidence"} <= set(actions)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("legal_name", ""), ("legal_name", "x" * 201), ("street", "a\x07b"), ("country", "XX"), ("country", "Denmark"),
        ("register_number", "13585627"), ("mailbox", "nobody"), ("phone", "call me"), ("website", "javascript:alert(1)"),
        ("website", "acme.example"), ("brands", ["x" * 81]), ("brands", [str(n) for n in range(21)]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_its_field(acme: Account, field: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        submit(acme, **{field: value})
    assert refused.value.field == field
    assert not SenderIdentity.objects.exists()


@pytest.mark.parametrize(
    ("country", "number", "valid"),
    [
        ("DK", "13585628", True), ("DK", "DK13585628", True), ("DK", "13585627", False), ("SE", "556703-7485", True),
        ("NO", "988 077 917", True), ("NO", "988077918", False), ("FR", "552 008 443", True), ("GL", "12345", None),
    ],
)  # fmt: skip
def test_a_register_number_is_judged_by_its_check_digits(country: str, number: str, valid: bool | None) -> None:
    assert identity.number_is_valid(country, number) is valid


def test_evidence_is_sealed_and_of_a_kind_that_is_taken(acme: Account) -> None:
    with pytest.raises(Refused):
        identity.add_evidence(CONSOLE, acme.id, "x.pdf", PDF)  # whose would it be
    submit(acme)
    for octets in (b"MZ program", b"<html>", b"", PDF + bytes(identity.MOST_EVIDENCE_OCTETS)):
        with pytest.raises(Refused):
            identity.add_evidence(CONSOLE, acme.id, "x.pdf", octets)
    identity.add_evidence(CONSOLE, acme.id, "../../etc/pass\nwd.pdf", PDF)
    assert identity.evidence_of(acme.id) == ("passwd.pdf", "application/pdf", PDF)
    (file,) = (current().folder / "evidence").iterdir()
    assert PDF not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_page_says_who_one_is_and_an_operator_judges(acme: Account, client: Client, configure: Any) -> None:
    del client
    configure(demo=True)
    owner, otto = (
        browser_of(make_member(acme, "owner", "o@acme.example")),
        browser_of(make_person("otto@p.example", operator=True)),
    )
    path = f"/a/{acme.id}/identity/"

    def form(**changes: str) -> dict[str, Any]:
        return GOOD | {"brands": "Acme\nAcme Print", "evidence": SimpleUploadedFile("extract.pdf", PDF)} | changes

    refused = owner.post(path, form(register_number="13585627"))
    assert "check digits do not fit" in refused.content.decode()
    assert not SenderIdentity.objects.exists()
    assert owner.post(path, form()).status_code == 302
    assert "Being looked at" in owner.get(path).content.decode()
    answer = owner.get(f"{path}evidence/")
    assert (answer.content, answer["Content-Disposition"].startswith("attachment")) == (PDF, True)
    assert "sandbox" in answer["Content-Security-Policy"]
    text = otto.get("/operator/identities/").content.decode()
    assert "Acme ApS" in text
    assert otto.get(f"/operator/identities/{acme.id}/evidence/").content == PDF
    otto.post(f"/operator/identities/{acme.id}/judge/", {"verdict": "refuse", "remark": "Which street?"})
    assert "Which street?" in owner.get(path).content.decode()
    otto.post(f"/operator/identities/{acme.id}/judge/", {"verdict": "accept"})
    assert "Verified" in owner.get(path).content.decode()
    developer = browser_of(make_member(acme, "developer", "dev@acme.example"))
    assert developer.get(path).status_code == 200
    assert developer.post(path, form()).status_code == 403
    assert developer.get(f"{path}evidence/").status_code == 403
    assert otto.post("/operator/identities/acct_nobody/judge/", {"verdict": "accept"}).status_code == 302


def test_countries_have_names_in_each_language() -> None:
    assert dict(identity.countries("da"))["DE"] == "Tyskland"
    assert dict(identity.countries("en"))["DK"] == "Denmark"
    assert not {"EU", "ZZ"} & set(dict(identity.countries("en")))
