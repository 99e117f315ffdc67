"""Every page: no serious fault for who listens instead of looks, nothing from elsewhere, no complaint, and not heavy."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.pages import NO_PAGE, PAGES, Shown
from tests.browser.site import Site
from tests.browser.visit import OUR_HOSTS, Visit, chromium, missing, visiting

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
MOST_OCTETS = 300 * 1024  # of one page with all that it needs, by an empty cache


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    why = missing()
    if why:
        pytest.skip(why)
    with Site(tmp_path_factory.mktemp("pages") / "data") as served:
        yield served


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    with chromium() as started:
        yield started


def looks(browser: Browser, site: Site, pages: list[Shown], **options: object) -> Iterator[tuple[Shown, Visit, Page]]:
    """Look at pages as those to whom they belong, signing in once for each."""
    for who in dict.fromkeys(page.who for page in pages):
        with visiting(browser, site.url, **options) as visit:
            if who:
                visit.sign_in(who, site.made["password"], _SIGN_IN[str(options.get("locale", "en-GB"))])
            for shown in (page for page in pages if page.who == who):
                yield shown, visit, visit.open(shown.at(site.made))


_SIGN_IN = {"en-GB": "Sign in", "da-DK": "Log ind"}


@pytest.mark.parametrize(
    "options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}, "locale": "da-DK"}], ids=str
)
def test_no_page_has_a_serious_fault_or_asks_anything_of_another_host(
    site: Site, browser: Browser, options: dict[str, object]
) -> None:
    wrong: list[tuple[str, object]] = []
    for shown, visit, page in looks(browser, site, PAGES, **options):
        wrong += [(shown.name, fault) for fault in visit.faults()]
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            wrong.append((shown.name, f"{wide} px wider than the screen"))
        complaints = [one for one in visit.complaints if shown.name != "nothing-there"]
        wrong += [(shown.name, one) for one in complaints]
        visit.complaints.clear()
        wrong += [(shown.name, host) for host in visit.hosts - OUR_HOSTS]
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong)


def test_no_page_is_heavy(site: Site, browser: Browser) -> None:
    weights = {}
    for name in ("sign-in", "home", "messages", "message", "credential"):
        [shown] = [page for page in PAGES if page.name == name]
        with visiting(browser, site.url) as visit:
            if shown.who:
                visit.sign_in(shown.who, site.made["password"])
            visit.context.new_cdp_session(visit.page).send("Network.clearBrowserCache")
            visit.open(shown.at(site.made))
            visit.page.wait_for_load_state("networkidle")
            weights[name] = visit.octets
    print({name: f"{octets // 1024} KiB" for name, octets in weights.items()})
    assert all(0 < octets <= MOST_OCTETS for octets in weights.values()), weights


def test_every_address_that_is_a_page_is_looked_at() -> None:
    from tests.browser.routes import page_routes

    known = {page.route for page in PAGES} | NO_PAGE
    assert sorted(page_routes() - known) == []
    assert sorted({page.route for page in PAGES if page.route} - page_routes() - _FOREIGN) == []


_FOREIGN = {
    "account_login",
    "account_signup",
    "account_reset_password",
    "account_email",
    "account_change_password",
    "mfa_index",
    "usersessions_list",
}
