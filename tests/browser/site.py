"""A console of its own for the browser: pages as gunicorn serves them, on a free port, over SQLite in its own folder."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_port

_START_SECONDS = 60.0


class Site:
    """Pages that run while the `with` lasts. `made` tells what `seed` made."""

    def __init__(self, folder: Path, *, relay_port: int = 9, demo: bool = True) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"  # passkeys want a name, and localhost is one that browsers trust
        told = {
            "data": str(folder), "demo": demo, "sign_up": True, "public_url": self.url, "address": f"127.0.0.1:{self.port}",
            "hostname": "relay.example", "submission_host": "relay.example", "submission_port": 587, "submission_tls_port": 465,
            "api_url": "https://api.relay.example", "system_smtp": f"127.0.0.1:{relay_port}",
        }  # fmt: skip
        self._environment = os.environ | {
            "POSTBUD_CONSOLE": json.dumps(told),
            "DJANGO_SETTINGS_MODULE": "postbud.console.settings",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.made: dict[str, Any] = {}

    def __enter__(self) -> "Site":
        self.folder.mkdir(parents=True, exist_ok=True)
        seed = [sys.executable, "-m", "tests.browser.seed"]
        filled = subprocess.run(seed, env=self._environment, stdout=subprocess.PIPE, check=True)
        self.made = json.loads(filled.stdout)
        words = [
            "-m",
            "gunicorn",
            "--bind",
            f"127.0.0.1:{self.port}",
            "--threads",
            "4",
            "--worker-class",
            "gthread",
            "--log-level",
            "warning",
        ]
        with (self.folder / "pages.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words, "postbud.console.wsgi:application"], env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/me/login/", timeout=5):
                return self
            time.sleep(0.1)
        self.__exit__()
        raise TimeoutError((self.folder / "pages.log").read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def command(self, *words: str) -> str:
        """Run a module of the tests over the same folder."""
        return subprocess.run(
            [sys.executable, "-m", *words], env=self._environment, stdout=subprocess.PIPE, check=True, text=True
        ).stdout
