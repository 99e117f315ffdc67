"""A real browser (Debian's Chromium, by Playwright) that visits the pages, and watches what they do while it does.

Every request is noted, so that a test can say that none left the machine; so is what a page complains of (script errors, broken
CSP) and what it weighs. `axe` runs the accessibility checker inside of the page.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, sync_playwright

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
OUR_HOSTS = frozenset({"localhost", "127.0.0.1"})
_WORDS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN_AXE = """async (rules) => (await axe.run(document, {runOnly: rules})).violations.map(
  one => ({id: one.id, impact: one.impact, nodes: one.nodes.map(node => node.html.slice(0, 160)).slice(0, 4)}))"""


def missing() -> str | None:
    """Tell what is missing, if something is."""
    if not Path(CHROMIUM).exists():
        return "Chromium is not installed (apt-get install chromium)"
    return None if AXE.exists() else "axe-core is not installed (make npm)"


class Visit:
    """One person's browser: a context of its own, with one page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.octets = 0
        context.on("request", self._asked)
        context.on("response", self._answered)
        self.page = self.watch(context.new_page())

    def watch(self, page: Page) -> Page:
        """Note what a page complains of."""
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda told: self.complaints.append(f"{page.url}: {told.text}") if told.type == "error" else None)
        return page

    def open(self, path: str) -> Page:
        """Open an address of the pages; `octets` counts what it took from then on."""
        self.octets = 0
        self.page.goto(f"{self.url}{path}", wait_until="load")
        return self.page

    def press(self, name: str, role: str = "button", **more: object) -> None:
        """Press a button or link by what it says."""
        self.page.get_by_role(role, name=name, **more).first.click()  # type: ignore[arg-type]  # a role's name

    def fill(self, label: str, value: str) -> None:
        """Fill a field by its label."""
        self.page.get_by_label(label, exact=True).fill(value)

    def sign_in(self, email: str, password: str, heading: str = "Sign in") -> None:
        """Sign in by password, as far as that goes."""
        self.open("/me/login/")
        self.page.locator("#id_login").fill(email)
        self.page.locator("#id_password").fill(password)
        self.page.get_by_role("button", name=heading, exact=True).click()
        self.page.wait_for_load_state()

    def sign_out(self) -> None:
        """Forget who this is."""
        self.context.clear_cookies()

    def faults(self) -> list[str]:
        """Give what axe finds on the page that is serious or worse."""
        self.page.evaluate(AXE.read_text())
        return [
            f"{one['id']}: {one['nodes']}"
            for one in self.page.evaluate(_RUN_AXE, _RULES)
            if one["impact"] in ("serious", "critical")
        ]

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about"):
            self.hosts.add(address.hostname or "")

    def _answered(self, response: Response) -> None:
        if response.request.resource_type != "fetch":
            with contextlib.suppress(Exception):  # the page went on meanwhile
                self.octets += int(response.headers.get("content-length") or 0)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Have a Chromium run."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_WORDS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visiting(browser: Browser, url: str, **options: object) -> Iterator[Visit]:
    """Have somebody visit: `locale`, `color_scheme`, `viewport` as Playwright takes them."""
    given: dict[str, object] = {
        "locale": "en-GB",
        "viewport": {"width": 1280, "height": 900},
        "accept_downloads": True,
        **options,
    }
    context = browser.new_context(**given)  # type: ignore[arg-type]  # Playwright's own options
    try:
        yield Visit(context, url)
    finally:
        context.close()
