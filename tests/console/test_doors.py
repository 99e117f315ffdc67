"""What every answer of the pages carries, whatever the page."""

import os
import subprocess
import sys
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.console.making import browser_of, make_account, make_person

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize("path", ["/me/login/", "/", "/nothing/there/", "home"])
def test_every_answer_forbids_what_is_not_ours_and_is_kept_nowhere(client: Client, path: str) -> None:
    if path == "home":
        ane = make_person()
        client, path = browser_of(ane), reverse("accounts:home", args=[make_account(owner=ane).id])
    answer = client.get(path)
    policy = dict(part.strip().partition(" ")[::2] for part in answer["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert "no-store" in answer["Cache-Control"]
    assert "Strict-Transport-Security" not in answer  # the address is plain http


def test_behind_https_browsers_are_told_to_stay_there(configure: Any) -> None:
    configure(public_url="https://post.example")
    answer = Client(SERVER_NAME="post.example").get("/me/login/", secure=True)
    assert answer["Strict-Transport-Security"].startswith("max-age=31536000")


def test_behind_https_cookies_are_of_this_host_alone() -> None:
    names = ["SESSION_COOKIE_", "CSRF_COOKIE_"]
    told = "; ".join(f"print(s.{name}NAME, s.{name}SECURE, s.{name}HTTPONLY, s.{name}SAMESITE)" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", f"import postbud.console.settings as s; {told}"], capture_output=True, text=True, check=True,
        env=os.environ | {"POSTBUD_CONSOLE": '{"public_url": "https://post.example"}'},
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["__Host-session True True Lax", "__Host-csrf True True Lax"]


def test_pages_have_no_script_and_no_style_inside(client: Client) -> None:
    text = client.get("/me/login/").content.decode()
    assert "<script" in text
    assert not [part for part in text.split("<script")[1:] if not (" src=" in part.partition(">")[0] or "json" in part[:60])]
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick=" not in text
