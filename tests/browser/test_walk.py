"""A customer's day in a real browser: sign in, second factors, a server, a credential, mail that arrives, and the end of it."""

import base64
import csv
import hashlib
import hmac
import json
import re
import struct
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visit import OUR_HOSTS, Visit, visiting
from tests.system.product import Product
from tests.system.smtp import Wire, plain

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
CONTENT = "From: Scanner <scanner@acme.example>\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nThe scan.\r\n.\r\n"


def account_of(visit: Visit) -> str:
    """Give the account's part of the address that is shown."""
    found = re.search(r"/a/acct_\w+/", visit.page.url)
    assert found, visit.page.url
    return found[0]


def code(secret: str, step: int = 0) -> str:
    """Give the one-time code of now, or of some steps of 30 seconds later (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30 + step), hashlib.sha1)
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


def send(product: Product, username: str, secret: str, to: str, subject: str) -> None:
    """Send by SMTP as a device does."""
    with Wire(product.ports["cleartext"]) as wire:
        wire.hello()
        wire.expect(f"AUTH PLAIN {plain(username, secret)}", 235)
        wire.expect("MAIL FROM:<scanner@acme.example>", 250)
        wire.expect(f"RCPT TO:<{to}>", 250)
        wire.expect("DATA", 354)
        wire.expect(CONTENT.format(to=to, subject=subject).removesuffix("\r\n"), 250)


def signed_in(visit: Visit, product: Product) -> Visit:
    """Sign the customer in."""
    visit.sign_in(product.noted["customer"]["email"], product.noted["customer"]["password"])
    expect(visit.page).to_have_url(re.compile(r"/a/acct_"))
    return visit


def well(visit: Visit) -> None:
    """Nothing left the machine, and no page complained."""
    assert visit.hosts <= OUR_HOSTS
    assert visit.complaints == []


def test_a_server_and_a_credential_are_made_and_mail_is_watched_arriving(
    visit: Visit, product: Product, tmp_path: Path
) -> None:
    page = signed_in(visit, product).page
    account = account_of(visit)

    visit.open(f"{account}servers/new/")
    visit.fill("Name", "Walk server")
    page.get_by_role("radio", name=re.compile("^Transactional")).check()
    visit.press("Create server")
    expect(page.get_by_role("heading", name="Walk server", level=1)).to_be_visible()

    visit.press("Connect a device", "link")
    page.get_by_role("radio", name="Printer").first.check()
    visit.fill("Name", "Scanner in the hall")
    visit.press("Create credential")
    expect(page.get_by_role("heading", name="Scanner in the hall can send")).to_be_visible()
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"[a-km-np-z2-9]{25}", secret.replace("-", "")), secret
    expect(page.get_by_role("img", name="QR code with the settings above")).to_be_visible()
    values = page.locator("dl.fields .copy-field code").all_inner_texts()
    username = next(one for one in values if one.startswith("scanner-in-the-hall"))
    assert str(product.ports["cleartext"]) in values or str(product.ports["implicit"]) in values

    visit.press("Send a test now")
    expect(page.locator("#trial").get_by_text("Delivered", exact=True)).to_be_visible()
    visit.press("See it in the message log", "link")
    expect(page.locator(".timeline").get_by_text("Delivered", exact=True)).to_be_visible()

    visit.open(f"{account}messages/")
    send(product, username, secret, "anybody@example.net", "Scan 17")
    row = page.locator("#rows tr", has_text="Scan 17")
    expect(row).to_be_visible()  # without a reload
    expect(row.get_by_text("Delivered")).to_be_visible()
    send(product, username, secret, "somebody@gone.example", "Scan 18")
    expect(page.locator("#rows tr", has_text="Scan 18").get_by_text("Bounced")).to_be_visible()

    page.locator("#id_q").fill("scan 18")
    page.locator("#id_q").press("Enter")
    expect(page.locator("#rows tr")).to_have_count(1)
    visit.press("Keep this search")
    page.locator("#view-name").fill("Scan 18")
    visit.press("Keep", exact=True)
    expect(page.locator('a[aria-current="page"]', has_text="Scan 18")).to_be_visible()
    with page.expect_download() as told:
        visit.press("CSV", "link")
    told.value.save_as(tmp_path / "log.csv")
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [(line["recipient"], line["state"]) for line in csv.DictReader(file)] == [("somebody@gone.example", "bounced")]
    with page.expect_download() as told:
        visit.press("NDJSON", "link")
    assert json.loads(Path(told.value.path()).read_text())["subject"] == "Scan 18"
    visit.press("Forget this search")
    expect(page.locator('a[aria-current="page"]', has_text="Scan 18")).to_have_count(0)

    page.locator("#rows tr", has_text="Scan 18").get_by_role("link").first.click()
    expect(page.get_by_text("Refused for good")).to_be_visible()
    conversation = page.locator("details", has_text="Conversation with the recipient's server").first
    conversation.locator("summary").click()
    expect(conversation.locator("pre")).to_contain_text("RCPT TO:<somebody@gone.example>")

    page.get_by_role("link", name="Scanner in the hall").first.click()
    visit.press("New password")
    page.locator("#overlap").select_option("0")
    visit.press("Create a new secret", exact=True)
    expect(page.get_by_role("heading", name="New secret for Scanner in the hall")).to_be_visible()
    fresh = page.locator("#secret").inner_text()
    assert fresh != secret
    send(product, username, fresh, "anybody@example.net", "Scan 19")
    _refused(product, username, secret)

    page.get_by_role("link", name="I have saved it").click()
    visit.press("Revoke")
    page.locator("dialog[open]").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("Whoever still uses it is refused.")).to_be_visible()
    _refused(product, username, fresh)
    well(visit)


def _refused(product: Product, username: str, secret: str) -> None:
    until = time.monotonic() + 10
    while True:
        with Wire(product.ports["cleartext"]) as wire:
            wire.hello()
            reply = wire.say(f"AUTH PLAIN {plain(username, secret)}")
        if reply.code == 535:
            return
        assert time.monotonic() < until, reply
        time.sleep(0.05)


def test_sandbox_mail_is_caught_and_can_be_read(visit: Visit, product: Product) -> None:
    page = signed_in(visit, product).page
    server = product.server("sandbox")
    visit.open(f"{account_of(visit)}messages/?server={server['id']}&period=1h")  # empty until it comes
    expect(page.get_by_text("Nothing found")).to_be_visible()
    send(product, server["username"], server["secret"], "anybody@example.net", "Only a try")
    row = page.locator("#rows tr", has_text="Only a try")
    expect(row.get_by_text("Captured")).to_be_visible()
    row.get_by_role("link").first.click()
    page.get_by_role("link", name="Read it").click()
    expect(page.get_by_text("The scan.")).to_be_visible()
    expect(page.get_by_role("heading", name="Header fields")).to_be_visible()
    well(visit)


def test_signing_in_takes_a_code_once_an_app_is_set_up_and_a_passkey_alone_will_do(visit: Visit, product: Product) -> None:
    page = signed_in(visit, product).page
    operator = product.noted["operator"]
    visit.sign_out()
    visit.sign_in(operator["email"], operator["password"])
    visit.open("/me/mfa/totp/activate/")
    _confirm(visit, operator["password"])
    secret = page.locator(".copy-field code").inner_text().replace(" ", "")
    visit.fill("Code", code(secret))
    visit.press("Switch it on")
    expect(page.get_by_role("heading", name=re.compile("[Rr]ecovery codes")).first).to_be_visible()

    visit.sign_out()
    visit.sign_in(operator["email"], operator["password"])
    expect(page.get_by_role("heading", name="Second step")).to_be_visible()
    visit.fill("Code", "000000")
    visit.press("Continue")
    expect(page.locator(".field-error, .form-errors").first).to_be_visible()
    visit.fill("Code", code(secret, 1))  # that of this half minute was used to set it up
    visit.press("Continue")
    expect(page.get_by_role("heading", name="Second step")).to_have_count(0)

    keys = visit.context.new_cdp_session(page)
    keys.send("WebAuthn.enable")
    told = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
    options = {**told, "isUserVerified": True, "automaticPresenceSimulation": True}
    keys.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    visit.open("/me/mfa/webauthn/add/")
    _confirm(visit, operator["password"])
    visit.fill("Name (optional)", "Laptop")
    visit.press("Create passkey")
    expect(page.get_by_text("1 passkey can sign you in.")).to_be_visible()

    visit.sign_out()
    visit.open("/me/login/")
    visit.press("Sign in with a passkey")
    expect(page).not_to_have_url(re.compile("/me/login/"))
    visit.open("/me/mfa/")
    expect(page.get_by_text("1 passkey can sign you in.")).to_be_visible()
    well(visit)


def _confirm(visit: Visit, password: str) -> None:
    """Say the password again, if the page wants it."""
    if "reauthenticate" in visit.page.url:
        visit.page.locator("#id_password").fill(password)
        visit.page.locator("form:has(#id_password) button.btn-primary").click()
        visit.page.wait_for_load_state()


def test_in_danish_the_pages_speak_danish(product: Product, chrome: Browser) -> None:
    with visiting(chrome, product.noted["console_url"], locale="da-DK") as visit:
        visit.sign_in(product.noted["customer"]["email"], product.noted["customer"]["password"], "Log ind")
        page = visit.page
        expect(page).to_have_url(re.compile(r"/a/acct_"))
        expect(page.locator("html")).to_have_attribute("lang", "da")
        account = account_of(visit)
        for path, heading in (("messages/", "Beskeder"), ("servers/", "Servere"), ("people/", "Personer")):
            visit.open(f"{account}{path}")
            expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        visit.open(f"{account}servers/new/")
        expect(page.get_by_role("button", name="Opret server")).to_be_visible()
        well(visit)
