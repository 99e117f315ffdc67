"""The whole product and a browser that visits it, for one module: Playwright's loop runs as long as its browser does."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visit import Visit, chromium, missing, visiting
from tests.system.product import Product

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """`postbud serve --demo`, reached by a name, since passkeys want one."""
    why = missing()
    if why:
        pytest.skip(why)
    made = Product(tmp_path_factory.mktemp("browser") / "demo")
    made.environment["POSTBUD__CONSOLE__PUBLIC_URL"] = f'"http://localhost:{made.ports["console"]}"'
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def chrome(product: Product) -> Iterator[Browser]:
    """Chromium, started once."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(product: Product, chrome: Browser) -> Iterator[Visit]:
    """Somebody who visits the product."""
    with visiting(chrome, product.noted["console_url"]) as one:
        yield one
