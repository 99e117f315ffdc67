"""Sending again, through the whole product: from what still waits, from what the console keeps, and when it is refused."""

import urllib.request
from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from tests.system.harness import wait_until
from tests.system.product import Browser, Product, serving
from tests.system.smtp import content_digest, make_content, new_test_id, queued_id

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with serving(tmp_path_factory.mktemp("resend") / "demo") as running:
        yield running


@pytest.fixture(scope="module")
def browser(product: Product) -> Browser:
    return product.browser()


def send(product: Product, *recipients: str, padding: bytes = b"") -> tuple[str, bytes]:
    domain = product.server()["domain"]
    content = make_content(new_test_id(), sender=f"printer@{domain}", recipient=recipients[0]) + padding
    with product.session() as wire:
        wire.expect(f"MAIL FROM:<printer@{domain}>", 250)
        for recipient in recipients:
            wire.expect(f"RCPT TO:<{recipient}>", 250)
        return queued_id(wire.data(content)), content


def pages_of(product: Product) -> str:
    account = product.rows("SELECT account_id FROM servers_server WHERE id = ?", product.server()["id"])[0]["account_id"]
    return f"/a/{account}"


def delivery_to(product: Product, message: str, mailbox: str, state: str) -> dict[str, Any]:
    def so() -> list[dict[str, Any]]:
        return [one for one in product.deliveries(message) if one["mailbox"] == mailbox and one["state"] == state]

    return wait_until(so, f"{mailbox} is {state}", 30)[0]


def send_again(product: Product, browser: Browser, message: str, delivery: str) -> str:
    """Press the button; give the page that follows."""
    path = f"{pages_of(product)}/messages/{message}/"
    _, page = browser.get(path)
    return browser.post(f"{path}command/", page, resend=delivery)[1]


def told(product: Product, message: str) -> dict[str, Any]:
    """Give the newest command about a message once a relay answered it."""

    def answered() -> list[dict[str, Any]]:
        rows = product.rows("SELECT * FROM link_command WHERE selector LIKE ? ORDER BY id DESC", f"%{message}%")
        return rows if rows and rows[0]["answered_at"] else []

    return wait_until(answered, "the relay answers", 30)[0]


def copies(product: Product, mailbox: str) -> list[bytes]:
    found = []
    for one in product.caught():
        if mailbox in one["recipients"]:
            url = f"{product.noted['catcher']['url']}/messages/{one['id']}.eml"
            with urllib.request.urlopen(url, timeout=10) as answer:
                found.append(answer.read())
    return found


def keep_content(product: Product, browser: Browser, *, keep: bool) -> None:
    path = f"{pages_of(product)}/servers/{product.server()['id']}/settings/"
    _, page = browser.get(path)
    fields = {"name": "Office devices"} | ({"keep_content": "on"} if keep else {})
    assert browser.post(path, page, **fields)[0] == 200
    statement = "SELECT 1 FROM servers_server WHERE id = ? AND keep_content = ?"
    wait_until(lambda: product.rows(statement, product.server()["id"], int(keep)), "it is set", 5)


def test_one_recipient_again_while_another_waits(product: Product, browser: Browser) -> None:
    message, content = send(product, "again@example.net", "waits@full.example")
    delivery = delivery_to(product, message, "again@example.net", "delivered")
    page = send_again(product, browser, message, delivery["id"])
    assert "told to the relay" in page or "Send again:" in page
    answer = told(product, message)
    assert (answer["changed"], answer["said"]) == (1, "")
    (again,) = product.wait_state(answer["made"], "delivered")
    assert (again["mailbox"], again["credential"]) == ("again@example.net", delivery["credential"])
    both = copies(product, "again@example.net")
    assert [content_digest(one) for one in both] == [content_digest(content)] * 2
    assert all(one.count(b"Received: from") == 1 for one in both)  # however often it was sent again
    _, page = browser.get(f"{pages_of(product)}/messages/{answer['made']}/")
    assert message in page
    _, page = browser.get(f"{pages_of(product)}/messages/{message}/")
    assert answer["made"] in page


def test_from_kept_content_also_of_what_bounced_and_what_is_large(product: Product, browser: Browser) -> None:
    keep_content(product, browser, keep=True)
    large = b"x" * 998 + b"\r\n"

    def taken_up() -> bool:
        message, _ = send(product, "probe@example.net")
        product.wait_state(message, "delivered")
        return bool(product.rows("SELECT 1 FROM link_content WHERE message = ?", message))

    wait_until(taken_up, "workers keep content", 30)
    gone, _ = send(product, "nobody@gone.example")
    big, content = send(product, "big@example.net", padding=large * 600)
    (bounced,), (delivered,) = product.wait_state(gone, "bounced"), product.wait_state(big, "delivered")
    for message in (gone, big):
        wait_until(lambda: product.rows("SELECT 1 FROM link_content WHERE message = ?", message), "it is kept", 20)  # noqa: B023
    send_again(product, browser, gone, bounced["id"])
    send_again(product, browser, big, delivered["id"])
    (again,) = product.wait_state(told(product, gone)["made"], "bounced")
    assert again["reply_code"] == 550
    product.wait_state(told(product, big)["made"], "delivered")
    assert [content_digest(one) for one in copies(product, "big@example.net")] == [content_digest(content)] * 2
    keep_content(product, browser, keep=False)


def test_what_is_not_kept_or_still_waits_is_not_offered_and_not_done(product: Product, browser: Browser) -> None:
    message, _ = send(product, "once@example.net", "waits@grey.example")
    waiting = delivery_to(product, message, "waits@grey.example", "deferred")
    assert "cannot be sent again" in send_again(product, browser, message, waiting["id"])
    product.wait_state(message, "delivered", 90)  # the content is forgotten with the last
    delivery = delivery_to(product, message, "once@example.net", "delivered")
    _, page = browser.get(f"{pages_of(product)}/messages/{message}/")
    assert f"resend-{delivery['id']}" not in page
    assert "cannot be sent again" in send_again(product, browser, message, delivery["id"])
    assert not product.rows("SELECT 1 FROM link_command WHERE selector LIKE ?", f"%{message}%")
    assert len(copies(product, "once@example.net")) == 1


def test_a_server_that_is_paused_sends_nothing_again_and_says_why(product: Product, browser: Browser) -> None:
    message, _ = send(product, "paused@example.net", "waits@full.example")
    delivery = delivery_to(product, message, "paused@example.net", "delivered")
    product.command("server", "pause", product.server()["id"], "--data", str(product.folder))
    product.wait_whole()
    wait_until(lambda: any(one["state"] == "held" for one in product.deliveries(message)), "workers know of the pause", 20)
    send_again(product, browser, message, delivery["id"])
    answer = told(product, message)
    assert (answer["changed"], answer["made"]) == (0, "")
    assert "paused" in answer["said"]
    _, page = browser.get(f"{pages_of(product)}/messages/{message}/")
    assert answer["said"] in page
    assert len(copies(product, "paused@example.net")) == 1
    product.command("server", "resume", product.server()["id"], "--data", str(product.folder))


def test_a_command_that_comes_again_sends_nothing_more(product: Product, browser: Browser) -> None:
    message, _ = send(product, "twice@example.net", "waits@full.example")
    delivery = delivery_to(product, message, "twice@example.net", "delivered")
    send_again(product, browser, message, delivery["id"])
    product.wait_state(told(product, message)["made"], "delivered")
    assert product.stop() == 0
    for spool in product.folder.glob("spool/worker-*/spool.db"):  # as if it died before it noted that it was done
        connection = apsw.Connection(str(spool))
        connection.execute("DELETE FROM meta WHERE name GLOB 'command *'")
        connection.close()
    before = product.rows("SELECT answers FROM link_command WHERE selector LIKE ?", f"%{message}%")
    product.start()  # workers read the directory anew, with the command in it
    statement = "SELECT answers FROM link_command WHERE selector LIKE ?"
    wait_until(lambda: product.rows(statement, f"%{message}%") != before, "it is answered again", 20)
    later, _ = send(product, "later@example.net")
    product.wait_state(later, "delivered")
    assert len(copies(product, "twice@example.net")) == 2
    assert len(product.rows("SELECT 1 FROM mail_delivery WHERE mailbox = 'twice@example.net'")) == 2
