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
    only = {name for name in parser.parse_args().only.split(",") if name}
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
                        page.screenshot(path=FOLDER / f"{shown.name}-{look}.png", full_page=True)
        print(f"{len(pages) * len(LOOKS)} pictures in {FOLDER.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
