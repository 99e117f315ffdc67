"""Signing up, in and out: by password, authenticator app, passkey, recovery code; limits, resets, ways back."""

import hashlib
import json
import re
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from django.core import mail
from django.test import Client
from django.utils import timezone

from postbud.console.accounts import audit, sessions
from postbud.console.accounts.models import AuditEntry, Person
from postbud.console.accounts.services import update_account
from tests.console.making import CONSOLE, PASSWORD, browser_of, make_account, make_person

pytestmark = pytest.mark.usefixtures("database")
_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
LOGIN = "/me/login/"


def code_at(shift: int = 0) -> str:
    return format_hotp_value(hotp_value(_SECRET, int(time.time()) // 30 + shift))


def sign_in(client: Client, email: str = "ane@acme.example", password: str = PASSWORD, **also: str) -> Any:
    return client.post(LOGIN, {"login": email, "password": password, **also})


def is_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


@pytest.fixture
def ane(database: str) -> Person:
    return make_person()


def test_a_person_signs_in_and_out(client: Client, ane: Person) -> None:
    make_account(owner=ane)
    assert client.get(LOGIN).status_code == 200
    response = sign_in(client, "Ane@ACME.example")
    assert (response.status_code, response["Location"]) == (302, "/")
    assert is_in(client)
    before = client.session.session_key
    assert client.get("/", follow=True).status_code == 200
    assert client.post("/me/logout/").status_code == 302
    assert not is_in(client)
    assert client.session.session_key != before
    assert AuditEntry.objects.filter(action="person.sign_in", actor=ane.id).count() == 1


def test_a_session_is_new_after_signing_in(client: Client, ane: Person) -> None:
    client.get(LOGIN)
    session = client.session
    session["x"] = 1
    session.save()
    before = session.session_key
    client.cookies["session"] = before
    sign_in(client)
    assert client.session.session_key != before


@pytest.mark.parametrize(("email", "password"), [("ane@acme.example", "wrong password"), ("nobody@acme.example", PASSWORD)])
def test_a_wrong_password_and_an_unknown_address_sound_the_same(client: Client, ane: Person, email: str, password: str) -> None:
    response = sign_in(client, email, password)
    assert response.status_code == 200
    assert not is_in(client)
    text = response.content.decode()
    assert "not correct" in text
    assert password not in text


@pytest.mark.row("J10")
def test_ten_guesses_of_a_password_are_answered_with_429(client: Client, ane: Person) -> None:
    statuses = [sign_in(client, password=f"guess number {number}").status_code for number in range(10)]
    assert statuses[:9] == [200] * 9
    assert statuses[9] == 429
    assert sign_in(Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")).status_code == 429  # the right one, elsewhere


@pytest.mark.row("J10")
def test_ten_guesses_of_a_code_are_answered_with_429(client: Client, ane: Person) -> None:
    TOTP.activate(ane, _SECRET)
    sign_in(client)
    good = {code_at(shift) for shift in range(-3, 4)}
    guesses = [guess for number in range(20) if (guess := f"{number:06}") not in good][:10]
    statuses = [client.post("/me/mfa/authenticate/", {"code": guess}).status_code for guess in guesses]
    assert statuses == [200] * 9 + [429]
    assert client.post("/me/mfa/authenticate/", {"code": code_at()}).status_code == 429
    assert not is_in(client)


@pytest.mark.row("J10")
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_code_works_once_in_all_of_its_time(ane: Person, shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    TOTP.activate(ane, _SECRET)
    now = 1_800_000_000.0
    monkeypatch.setattr("allauth.mfa.totp.internal.auth.time.time", lambda: now)
    code = code_at()
    first, second = (Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000") for _ in range(2))
    for client in (first, second):
        sign_in(client)
        assert not is_in(client)
    first.post("/me/mfa/authenticate/", {"code": code})
    assert is_in(first)
    now += 30 * shift
    second.post("/me/mfa/authenticate/", {"code": code})
    assert not is_in(second)


def test_a_code_stays_used_when_allauth_has_forgotten_it(ane: Person, client: Client) -> None:
    from django.core.cache import cache

    TOTP.activate(ane, _SECRET)
    code = code_at()
    sign_in(client)
    client.post("/me/mfa/authenticate/", {"code": code})
    assert is_in(client)
    cache.delete(f"allauth.mfa.totp.used?user={ane.id}&code={code}")
    other = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
    sign_in(other)
    other.post("/me/mfa/authenticate/", {"code": code})
    assert not is_in(other)


def test_a_recovery_code_works_once(ane: Person, client: Client) -> None:
    TOTP.activate(ane, _SECRET)
    codes = RecoveryCodes.activate(ane).get_unused_codes()
    assert len(codes) == 10
    for expected in (True, False):
        browser = Client(SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
        sign_in(browser)
        browser.post("/me/mfa/authenticate/", {"code": codes[0]})
        assert is_in(browser) is expected


def test_secrets_of_second_factors_are_sealed_at_rest(ane: Person) -> None:
    TOTP.activate(ane, _SECRET)
    seed = RecoveryCodes.activate(ane).instance.data
    stored = json.dumps(list(Authenticator.objects.values_list("data", flat=True)))
    assert _SECRET not in stored
    assert not re.search(r'"seed": "[0-9a-f]{20,}"', json.dumps(seed))


def test_setting_up_an_authenticator_app_asks_for_the_password_again(ane: Person, client: Client) -> None:
    sign_in(client)
    response = client.get("/me/mfa/totp/activate/")
    assert response.status_code == 302
    again = response["Location"]
    assert again.startswith("/me/reauthenticate/")
    assert client.post(again, {"password": "not the password"}).status_code == 200
    assert client.post(again, {"password": PASSWORD}).status_code == 302
    page = client.get("/me/mfa/totp/activate/")
    assert page.status_code == 200
    secret = client.session["mfa.totp.secret"]
    code = format_hotp_value(hotp_value(secret, int(time.time()) // 30))
    assert client.post("/me/mfa/totp/activate/", {"code": code}).status_code == 302
    assert Authenticator.objects.filter(user=ane, type="totp").exists()
    assert AuditEntry.objects.filter(action="person.factor_add", actor=ane.id).exists()
    assert secret not in json.dumps(list(AuditEntry.objects.values_list("after", flat=True)))
    assert any("ane@acme.example" in message.to for message in mail.outbox)


def test_an_operator_without_a_second_factor_reaches_only_its_setting_up(client: Client, configure: Any) -> None:
    operator = make_person("op@acme.example", operator=True)
    sign_in(client, "op@acme.example")
    for path in ("/operator/accounts/", "/", "/profile/", "/me/email/"):
        response = client.get(path)
        assert (response.status_code, response["Location"]) == (302, "/me/mfa/"), path
    assert client.get("/me/mfa/").status_code == 200
    assert client.get("/static/ui/none.css").status_code == 404
    configure(demo=True)
    assert client.get("/operator/accounts/").status_code == 200
    configure(demo=False)
    TOTP.activate(operator, _SECRET)
    assert client.get("/operator/accounts/").status_code == 200


def test_an_account_may_ask_its_members_for_a_second_factor(ane: Person) -> None:
    account = make_account(owner=ane)
    client = browser_of(ane)
    assert client.get(f"/a/{account.id}/").status_code == 200
    update_account(CONSOLE, account.id, mfa_required=True)
    response = client.get(f"/a/{account.id}/")
    assert (response.status_code, response["Location"]) == (302, "/me/mfa/")
    TOTP.activate(ane, _SECRET)
    assert client.get(f"/a/{account.id}/").status_code == 200


# -- passwords forgotten --


def reset_link(client: Client, **headers: str) -> str:
    client.post("/me/password/reset/", {"email": "ane@acme.example"}, headers=headers)
    (message,) = mail.outbox
    found = re.search(r"https?://\S+", str(message.body))
    assert found is not None
    return found[0]


@pytest.mark.row("J10")
def test_a_reset_leads_to_the_public_address_whatever_host_was_claimed(ane: Person, client: Client, configure: Any) -> None:
    configure(public_url="https://post.example")
    link = reset_link(client, X_Forwarded_Host="evil.example", Forwarded="host=evil.example")
    assert link.startswith("https://post.example/me/password/reset/key/")
    forged = client.post("/me/password/reset/", {"email": "ane@acme.example"}, headers={"host": "evil.example"})
    assert forged.status_code == 400
    assert len(mail.outbox) == 1
    assert "evil" not in str(mail.outbox[0].message())


def test_a_reset_changes_the_password_ends_sessions_and_never_passes_a_second_factor(ane: Person, client: Client) -> None:
    TOTP.activate(ane, _SECRET)
    elsewhere = browser_of(ane)
    assert elsewhere.get("/profile/").status_code == 200
    page = client.get(urlsplit(reset_link(client)).path, follow=True)
    path = page.redirect_chain[-1][0]
    weak = client.post(path, {"password1": "short", "password2": "short"})
    assert weak.status_code == 200
    new = "five loud otters write"
    assert client.post(path, {"password1": new, "password2": new}).status_code == 302
    assert not is_in(client)
    assert elsewhere.get("/profile/").status_code == 302  # its session ended
    sign_in(client, password=new)
    assert not is_in(client)  # the code is still asked for
    client.post("/me/mfa/authenticate/", {"code": code_at()})
    assert is_in(client)
    again = client.get(path, follow=True)
    assert client.post(path, {"password1": new, "password2": new}).status_code in {200, 302, 404}
    assert again.status_code == 200


def test_a_reset_for_nobody_says_the_same_and_sends_nothing(client: Client, ane: Person) -> None:
    known = client.post("/me/password/reset/", {"email": "ane@acme.example"})
    unknown = client.post("/me/password/reset/", {"email": "nobody@acme.example"})
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])
    assert [message.to for message in mail.outbox] == [["ane@acme.example"]]


# -- signing up --


def test_signing_up_is_closed_unless_it_is_open_or_one_was_invited(client: Client, configure: Any) -> None:
    values = {"email": "new@acme.example", "password1": PASSWORD, "name": "New"}
    client.post("/me/signup/", values)
    assert not Person.objects.exists()
    configure(sign_up=True)
    response = client.post("/me/signup/", values)
    assert response.status_code == 302
    assert Person.objects.get().email == "new@acme.example"
    assert not is_in(client)
    sign_in(client, "new@acme.example")
    assert not is_in(client)  # the address is not confirmed
    (message, *_) = mail.outbox
    link = re.search(r"http://127\.0\.0\.1:8000(/me/confirm-email/\S+)", str(message.body))
    assert link is not None
    client.post(link[1])
    assert EmailAddress.objects.get().verified
    sign_in(client, "new@acme.example")
    assert is_in(client)


def test_signing_up_does_not_tell_who_is_there(client: Client, ane: Person, configure: Any) -> None:
    configure(sign_up=True)
    there = client.post("/me/signup/", {"email": "ane@acme.example", "password1": PASSWORD, "name": ""})
    new = client.post("/me/signup/", {"email": "new@acme.example", "password1": PASSWORD, "name": ""})
    assert (there.status_code, there["Location"]) == (new.status_code, new["Location"])
    assert Person.objects.filter(email="ane@acme.example").count() == 1


# -- ways back, forms of others, sessions --


@pytest.mark.row("J9")
@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "http:evil"]
)
def test_a_way_back_is_ours_or_none(client: Client, ane: Person, target: str) -> None:
    response = client.post(
        f"{LOGIN}?next={target}&return_to={target}", {"login": ane.email, "password": PASSWORD, "next": target}
    )
    assert (response.status_code, response["Location"]) == (302, "/")


def test_a_way_back_that_is_ours_is_taken(client: Client, ane: Person) -> None:
    assert sign_in(client, next="/profile/")["Location"] == "/profile/"


@pytest.mark.row("J9")
def test_a_form_without_our_token_or_from_elsewhere_is_refused(ane: Person) -> None:
    account = make_account(owner=ane)
    client = Client(enforce_csrf_checks=True, SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
    client.force_login(ane, backend="allauth.account.auth_backends.AuthenticationBackend")
    path = f"/a/{account.id}/settings/"
    assert client.post(path, {"name": "Taken over"}).status_code == 403
    client.get(path)
    token = client.cookies["csrf"].value
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}):
        refused = client.post(path, {"name": "Taken over", "csrfmiddlewaretoken": token}, headers=headers)
        assert refused.status_code == 403
    account.refresh_from_db()
    assert account.name == "Acme"


def test_sessions_are_listed_and_ended(ane: Person, client: Client) -> None:
    other = browser_of(ane)
    other.get("/profile/", headers={"user-agent": "<script>alert(1)</script>"})
    sign_in(client)
    client.get("/profile/")
    page = client.get("/me/sessions/").content.decode()
    assert "<script>alert(1)" not in page
    assert UserSession.objects.filter(user=ane).count() == 2
    client.post("/me/sessions/")
    assert other.get("/profile/").status_code == 302
    assert client.get("/profile/").status_code == 200


def test_nobody_stays_for_ever(ane: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now)
    client = browser_of(ane)
    assert client.get("/profile/").status_code == 200
    idle = sessions.IDLE_REMEMBERED_SECONDS
    now += idle - 60
    assert client.get("/profile/").status_code == 200
    now += idle + 60
    assert client.get("/profile/").status_code == 302
    client = browser_of(ane)
    for _ in range(4):
        assert client.get("/profile/").status_code == 200
        now += sessions.LONGEST_SECONDS / 4 + 60
    assert client.get("/profile/").status_code == 302  # never idle, but too old


def test_what_ended_is_forgotten(ane: Person) -> None:
    client = browser_of(ane)
    client.get("/profile/")
    assert sessions.forget_sessions(timezone.now()) == 0
    assert sessions.forget_sessions(timezone.now() + timedelta(days=30)) == 1
    assert UserSession.objects.count() == 0
    assert client.get("/profile/").status_code == 302


def test_the_installations_chain_is_whole_after_all_this(ane: Person, client: Client) -> None:
    for _ in range(3):
        sign_in(client)
        client.post("/me/logout/")
    assert audit.verify_chain(audit.INSTALLATION) == []
    assert hashlib.sha256(b"").hexdigest() not in set(AuditEntry.objects.values_list("hash", flat=True))
