"""Kept contents on the pages: readable, and unable to do anything (row J8); and that who reads one is noted."""

import re
from datetime import timedelta
from email.message import EmailMessage

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from postbud.console.accounts.models import Account, AuditEntry
from postbud.console.configuration import current
from postbud.console.link.content import ContentStore
from postbud.console.mail.ingest import ingest
from postbud.console.mail.preview import preview
from tests.console.link_server import Relay
from tests.console.making import browser_of, make_account, make_member, make_person

EVIL = """<html><head><script>alert(1)</script><meta http-equiv="refresh" content="0;url=http://evil.example">
<link rel="stylesheet" href="http://evil.example/x.css"></head><body onload="alert(2)"><h1>Hello</h1>
<img src="http://evil.example/pixel.gif"><form action="http://evil.example"><input name="password"></form>
<iframe src="/me/"></iframe></body></html>"""


def letter() -> bytes:
    message = EmailMessage()
    message["From"] = "Ann <ann@acme.example>"
    message["Subject"] = "Rechnung für <b>Bo</b>"
    message.set_content("Hello in text\n")
    message.add_alternative(EVIL, subtype="html")
    message.add_attachment(b"%PDF-1.4 x", maintype="application", subtype="pdf", filename="bill <1>.pdf")
    return bytes(message)


def kept(content: bytes) -> tuple[Client, Account, str]:
    """Give the owner's browser, the account, and the address of a message whose content is kept."""
    owner = make_person()
    account = make_account(owner=owner)
    relay = Relay(7, account.id)
    at = timezone.now() - timedelta(minutes=1)
    relay._milliseconds = int(at.timestamp() * 1000)
    event = relay.accepted(at=at)
    ingest(relay.batch(event))
    ContentStore(current().folder / "content").put(account.id, "srv_a", event.message, content, at)
    return browser_of(owner), account, f"/a/{account.id}/messages/{event.message}/"


@pytest.mark.row("J8")
@pytest.mark.usefixtures("database")
def test_html_is_shown_where_nothing_of_it_runs_or_loads() -> None:
    browser, _, address = kept(letter())
    page = browser.get(f"{address}content/").content.decode()
    [frame] = re.findall(r"<iframe[^>]*>", page)
    assert re.search(r'\ssandbox(\s|>|="")', frame)
    assert "alert" not in page
    assert "evil.example" not in page
    html = browser.get(f"{address}content/html/")
    policy = html["Content-Security-Policy"]
    directives = {words.split()[0]: words.split()[1:] for words in policy.split(";")}
    assert directives["default-src"] == ["'none'"]  # scripts, connections, forms' and frames' targets, fonts, media
    assert directives["img-src"] == ["data:"]
    assert directives["sandbox"] == []  # no origin, no scripts, no forms, no navigation of the page around it
    assert "script-src" not in directives
    assert html["X-Content-Type-Options"] == "nosniff"
    assert html["Referrer-Policy"] == "no-referrer"
    assert "<h1>Hello</h1>" in html.content.decode()


@pytest.mark.row("J8")
@pytest.mark.usefixtures("database")
def test_text_fields_and_names_of_attachments_are_shown_as_text() -> None:
    content = letter()
    browser, _, address = kept(content)
    page = browser.get(f"{address}content/").content.decode()
    for told in ("Hello in text", "Rechnung für &lt;b&gt;Bo&lt;/b&gt;", "bill &lt;1&gt;.pdf", "application/pdf"):
        assert told in page
    raw = browser.get(f"{address}content/raw/")
    assert raw.content == content
    assert (raw["Content-Type"], raw["Content-Disposition"].partition(";")[0]) == ("message/rfc822", "attachment")


@pytest.mark.usefixtures("database")
def test_who_reads_a_content_is_noted_and_who_may_not_does_not() -> None:
    browser, account, address = kept(letter())
    assert 'content/"' in browser.get(address).content.decode()
    browser.get(f"{address}content/")
    browser.get(f"{address}content/raw/")
    assert AuditEntry.objects.filter(account=account.id, action="message.read").count() == 2
    viewer = browser_of(make_member(account, "viewer", "vera@acme.example"))
    assert 'content/"' not in viewer.get(address).content.decode()
    stranger = browser_of(make_person("olga@other.example"))
    for part in ("content/", "content/html/", "content/raw/"):
        assert viewer.get(address + part).status_code == 403
        assert stranger.get(address + part).status_code == 404
    assert AuditEntry.objects.filter(action="message.read").count() == 2


@pytest.mark.usefixtures("database")
def test_a_content_that_is_gone_or_damaged_is_not_found() -> None:
    browser, account, address = kept(letter())
    [file] = (current().folder / "content").glob("*/*/*")
    octets = bytearray(file.read_bytes())
    octets[-1] ^= 1
    file.write_bytes(octets)
    assert browser.get(f"{address}content/").status_code == 404
    file.unlink()
    assert browser.get(f"{address}content/").status_code == 404
    ContentStore(current().folder / "content").delete(account.id, [address.split("/")[-2]])
    assert 'content/"' not in browser.get(address).content.decode()


@pytest.mark.row("J8")
@given(st.binary(max_size=300))
def test_whatever_the_octets_are_there_is_a_preview(content: bytes) -> None:
    head = (
        b"From: x\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: text/html; charset=klingon\r\n\r\n"
    )
    for octets in (content, b"Content-Type: " + content, b"Subject: =?utf-8?b?" + content, head + content):
        shown = preview(octets)
        assert isinstance(shown.text, str)
        assert isinstance(shown.html, str)
        assert not shown.fields or all(isinstance(value, str) for _, value in shown.fields)


def test_a_message_that_nests_without_end_is_shown_in_part() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))
    assert preview(nested).flawed
