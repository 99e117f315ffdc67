"""From signing up to the first delivered message, a domain's life, figures that lead to rows, and the operator's tools."""

import re
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.test_walk import account_of, send, signed_in, well
from tests.browser.visit import Visit, chromium, missing, visiting
from tests.system.dns_world import World
from tests.system.harness import wait_until
from tests.system.product import Product

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser-grown")]
PASSWORD = "heather tractor window lighthouse"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        running.delegate("lotus.example")
        yield running


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Product]:
    """The whole product, open to whoever signs up, with a DNS server of its own."""
    why = missing()
    if why:
        pytest.skip(why)
    made = Product(tmp_path_factory.mktemp("grown") / "demo")
    made.environment |= {
        "POSTBUD__CONSOLE__PUBLIC_URL": f'"http://localhost:{made.ports["console"]}"', "POSTBUD__CONSOLE__SIGN_UP": "true",
        "POSTBUD__DNS__NAMESERVERS": f'["127.0.0.1:{world.stub.port}"]', "POSTBUD__DNS__NETWORKS": '["127.0.0.0/8"]',
    }  # fmt: skip
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def chrome(product: Product) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(product: Product, chrome: Browser) -> Iterator[Visit]:
    with visiting(chrome, product.noted["console_url"]) as one:
        yield one


def mail_to(product: Product, mailbox: str) -> str:
    """Give the latest mail to somebody, as soon as the catcher has one."""

    def caught() -> list[str]:
        return [one["id"] for one in product.caught() if mailbox in one["recipients"]]

    (latest, *_) = wait_until(caught, f"mail for {mailbox}", 60)
    url = f"{product.noted['catcher']['url']}/messages/{latest}.eml"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().replace(b"=\r\n", b"").replace(b"=3D", b"=").decode("utf-8", "replace"))


def test_from_signing_up_to_the_first_delivered_message(visit: Visit, product: Product, world: World) -> None:
    page = visit.open("/me/signup/")
    page.locator("#id_email").fill("lena@lotus.example")
    page.locator("#id_password1").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("Create|Sign up|account", re.IGNORECASE)).last.click()
    link = re.search(r"/me/confirm-email/[^\s/]+/", mail_to(product, "lena@lotus.example"))
    if link:
        visit.open(link[0])
        page.get_by_role("button").last.click()
    else:
        code = re.search(r"\b([A-Z0-9]{3,4}-?[A-Z0-9]{3,4})\b\s*$", mail_to(product, "lena@lotus.example"), re.MULTILINE)
        assert code
        page.locator("input[name=code]").fill(code[1])
        page.get_by_role("button").last.click()
    if page.locator("#id_login").count():
        visit.sign_in("lena@lotus.example", PASSWORD)
    page.get_by_label("Name", exact=False).first.fill("Lotus Flowers")
    page.get_by_role("button", name=re.compile("Create")).last.click()
    expect(page.get_by_role("heading", name="Lotus Flowers", level=1)).to_be_visible()

    visit.press("Fill it in", "link")
    for label, value in (
        ("Legal name", "Lotus Flowers ApS"), ("Street and number", "Havnegade 4"), ("Postcode", "8000"), ("City", "Aarhus"),
        ("Register number (optional)", "13585627"), ("Contact mailbox", "post@lotus.example"),
    ):  # fmt: skip
        visit.fill(label, value)
    page.get_by_label("Country").select_option("DK")
    visit.press("Save and have it looked at")
    expect(page.get_by_text("its check digits do not fit")).to_be_visible()
    visit.fill("Register number (optional)", "13585628")
    visit.press("Save and have it looked at")
    expect(page.get_by_text("Being looked at").first).to_be_visible()
    assert visit.faults() == []

    visit.open(account_of(visit))
    visit.press("Add a domain", "link")
    visit.fill("Domain", "lotus.example")
    visit.press("Add domain")
    expect(page.get_by_text("Waiting for proof")).to_be_visible()
    world.paste(page.locator("#zone").inner_text() + "\n")
    visit.press("Check now")
    expect(page.get_by_text("The records are there.")).to_be_visible()
    expect(page.get_by_text("Verified", exact=True).first).to_be_visible()
    assert visit.faults() == []

    visit.open(account_of(visit))
    visit.press("Create server", "link")
    visit.fill("Name", "Shop")
    page.get_by_role("radio", name=re.compile("^Transactional")).check()
    visit.press("Create server")
    visit.press("Connect a device", "link")
    page.get_by_role("radio").first.check()
    visit.fill("Name", "Till")
    visit.press("Create credential")
    visit.press("Send a test now")
    expect(page.locator("#trial").get_by_text("Delivered", exact=True)).to_be_visible()
    visit.press("See it in the message log", "link")
    expect(page.locator(".timeline").get_by_text("Delivered", exact=True)).to_be_visible()
    well(visit)


def test_a_domains_life(visit: Visit, product: Product, world: World) -> None:
    world.delegate("rose.example")
    page = signed_in(visit, product).page
    account = account_of(visit)
    visit.open(f"{account}domains/new/")
    visit.fill("Domain", "rose.example")
    visit.press("Add domain")
    visit.press("Check now")
    expect(page.get_by_text("Not all needed records are there yet.")).to_be_visible()
    world.paste(page.locator("#zone").inner_text() + "\n")
    visit.press("Check now")
    expect(page.get_by_text("Verified", exact=True).first).to_be_visible()
    world.stub.zone[("_postbud.rose.example", "TXT")] = ['"postbud-verification=wrong"', '"v=other"']
    visit.press("Check now")
    expect(page.get_by_text("The proof is gone from DNS.")).to_be_visible()
    expect(page.get_by_text("v=other")).to_be_visible()
    assert visit.faults() == []
    visit.press("New keys")
    page.locator("dialog[open]").get_by_role("button", name="Make new keys").click()
    expect(page.get_by_role("heading", name=re.compile("Signature"))).to_have_count(4)
    visit.press("Remove")
    page.locator("dialog[open]").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("rose.example was removed.")).to_be_visible()
    well(visit)


def test_figures_lead_to_the_rows_behind_them(visit: Visit, product: Product) -> None:
    page = signed_in(visit, product).page
    account, server = account_of(visit), product.server()
    for number in range(3):
        send(product, server["username"], server["secret"], f"figure{number}@example.net", f"Figure {number}")
    send(product, server["username"], server["secret"], "somebody@gone.example", "Figure 3")

    def counted() -> bool:
        visit.open(f"{account}statistics/?period=24h&by=server")
        row = page.locator("tr", has_text=re.compile("Office")).first
        return row.count() > 0 and row.get_by_role("link").count() >= 4  # name, accepted, delivered, bounced

    wait_until(counted, "the figures are there", 30)
    expect(page.locator("canvas").first).to_be_visible()
    assert visit.faults() == []
    row = page.locator("tr", has_text=re.compile("Office")).first
    bounced = int(row.get_by_role("link").nth(3).inner_text())
    row.get_by_role("link").nth(3).click()
    expect(page.locator("#rows tr")).to_have_count(bounced)
    expect(page.locator("#rows tr", has_text="somebody@gone.example").first).to_be_visible()
    visit.open(f"{account}statistics/?period=24h&by=class")
    visit.press("The recipient: no such mailbox, or full", "link")
    expect(page.get_by_text("show everything")).to_be_visible()
    well(visit)


def test_an_operator_steers_the_queue(visit: Visit, product: Product) -> None:
    server = product.server()
    send(product, server["username"], server["secret"], "waits@full.example", "Steered")
    statement = "SELECT state FROM mail_delivery WHERE mailbox = 'waits@full.example'"

    def state() -> str:
        rows = product.rows(statement)
        return str(rows[0]["state"]) if rows else ""

    wait_until(lambda: state() == "deferred", "it waits", 30)
    visit.sign_in(product.noted["operator"]["email"], product.noted["operator"]["password"])
    page = visit.open("/operator/")
    expect(page.get_by_role("heading", name="What waits, and why")).to_be_visible()
    assert visit.faults() == []
    for what, then in (("hold", "held"), ("release", "deferred"), ("cancel", "cancelled")):
        visit.open("/operator/queue/")
        visit.press("Steer mail")
        dialog = page.locator("dialog[open]")
        dialog.get_by_label("What to do").select_option(what)
        dialog.get_by_label(re.compile("^Recipient's domain")).fill("full.example")
        dialog.get_by_role("button", name="Tell the relays").click()
        expect(page.get_by_text("Told to the relays.").first).to_be_visible()
        wait_until(lambda wanted=then: state() == wanted, f"it is {then}", 30)
    well(visit)


def test_the_new_pages_speak_danish(chrome: Browser, product: Product) -> None:
    with visiting(chrome, product.noted["console_url"], locale="da-DK") as visit:
        visit.sign_in(product.noted["customer"]["email"], product.noted["customer"]["password"], "Log ind")
        page = visit.page
        expect(page).to_have_url(re.compile(r"/a/acct_"))
        account = account_of(visit)
        pages = {"domains/": "Domæner", "statistics/": "Statistik", "identity/": "Afsenderidentitet", "api-keys/": "API-nøgler"}
        for path, words in pages.items():
            visit.open(f"{account}{path}")
            expect(page.get_by_role("heading", name=words, level=1)).to_be_visible()
        well(visit)
