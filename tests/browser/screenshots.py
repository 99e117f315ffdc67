"""Photographs every page: light, dark, on a phone, in Danish; into `build/screenshots`, which git ignores.

python -m tests.browser.screenshots [--only NAME,NAME]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.browser.pages import PAGES
from tests.browser.site import Site
from tests.browser.visit import chromium, missing, visiting

FOLDER = Path(__file__).resolve().parents[2] / "build" / "screenshots"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "images"
OF_DOCS = {
    "messages": ("console", "light"), "message": ("console-message", "light"), "server": ("console-server", "light"),
    "messages-found": ("console-dark", "dark"),
}  # fmt: skip
LOOKS: dict[str, dict[str, object]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    "danish": {"locale": "da-DK"},
}


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of pages, with commas")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    only = set(OF_DOCS) if given.docs else {name for name in given.only.split(",") if name}
    if why := missing():
        sys.exit(why)
    pages = [page for page in PAGES if not only or page.name in only]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder) / "data") as site, chromium() as browser:
        for look, options in LOOKS.items():
            for who in dict.fromkeys(page.who for page in pages):
                with visiting(browser, site.url, **options) as visit:
                    if who:
                        visit.sign_in(who, site.made["password"], "Log ind" if look == "danish" else "Sign in")
                    for shown in (page for page in pages if page.who == who):
                        page = visit.open(shown.at(site.made))
                        if not given.docs:
                            page.screenshot(path=FOLDER / f"{shown.name}-{look}.png", full_page=True)
                        elif OF_DOCS[shown.name][1] == look:
                            page.screenshot(path=DOCS / f"{OF_DOCS[shown.name][0]}.png")
        if given.docs:
            return
        print(f"{len(pages) * len(LOOKS)} pictures in {FOLDER.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
