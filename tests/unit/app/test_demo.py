"""The demo's folder, its catcher's world, what it keeps, and the traffic it plays."""

import random
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.ports import free_port

from postbud.app import demo
from postbud.app.catcher import World, refuse_other_hosts
from postbud.app.catcher_pages import page_of
from postbud.app.caught import CaughtBox
from postbud.app.config import load_settings
from postbud.app.demo import DemoServer, Person
from postbud.app.traffic import device_message, newsletter, rate_per_minute
from postbud.model.mailbox import Mailbox
from postbud.model.refusal import Refusal
from postbud.model.settings import SettingsError

SERVER = DemoServer("srv_1", "transactional", "acme.example", "printer-1", "secret", "pbk_1")


def test_a_demo_is_not_begun_in_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "console.db").write_text("real")
    with pytest.raises(SettingsError, match="not empty and holds no demo"):
        demo.prepare(tmp_path)
    assert not demo.is_demo(tmp_path)
    for name in ("demo.json", "accounts.toml"):
        (tmp_path / name).touch()
    with pytest.raises(SettingsError, match="older version; remove it"):
        demo.prepare(tmp_path)


def test_a_demo_is_marked_and_is_not_served_as_if_it_were_real(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo.prepare(folder)
    assert "demo" in (folder / "DEMO").read_text()
    with pytest.raises(SettingsError, match="holds a demo"):
        demo.refuse_demo(folder)
    demo.refuse_demo(tmp_path)


def test_a_demo_keeps_the_settings_that_somebody_changed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo.prepare(folder)
    path = folder / "postbud.toml"
    path.write_text(path.read_text().replace("127.0.0.1:2525", "127.0.0.1:3525"))
    demo.prepare(folder)
    settings = load_settings(None, {}, str(folder))
    assert settings.config.relay.listener[0].address == "127.0.0.1:3525"
    assert settings.data == folder


def test_an_offset_moves_every_port(tmp_path: Path) -> None:
    demo.prepare(tmp_path / "demo", 10_000)
    settings = load_settings(None, {}, str(tmp_path / "demo"))
    config = settings.config
    addresses = [listener.address for listener in config.relay.listener]
    addresses += [config.console.address, config.api.address, config.telemetry.address, config.demo.smtp_address]
    addresses += [config.demo.http_address, config.relay.route[0].next_hop]
    assert sorted({int(address.rpartition(":")[2]) - 10_000 for address in addresses}) == [
        2525, 2526, 2626, 2627, 4465, 8000, 8025, 9025,
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="range of ports"):
        demo.prepare(tmp_path / "demo", 60_000)


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    demo.prepare(tmp_path / "demo")
    keys = ("CONSOLE__ADDRESS", "TELEMETRY__ADDRESS", "DEMO__SMTP_ADDRESS", "DEMO__HTTP_ADDRESS", "API__ADDRESS")
    addresses = {f"POSTBUD__{key}": f'"127.0.0.1:{free_port()}"' for key in keys}
    settings = load_settings(None, addresses | {"POSTBUD__RELAY__LISTENER": "[]"}, str(tmp_path / "demo"))
    taken = settings.config.console.address
    port = int(taken.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SettingsError, match=f"{re.escape(taken)} is in use"):
        demo.require_ports(settings, 0.3)
    demo.require_ports(settings, 5.0)


def test_what_was_printed_is_noted_for_programs_and_for_nobody_else(tmp_path: Path) -> None:
    demo.prepare(tmp_path / "demo")
    settings = load_settings(None, {}, str(tmp_path / "demo"))
    noted = demo.note(settings, Person("op@x.example", "a"), Person("cu@x.example", "b"), [SERVER])
    path = settings.data / "demo.json"
    assert path.stat().st_mode & 0o777 == 0o600
    said = msgspec.json.decode(path.read_bytes())
    assert set(said) == {
        "smtp", "api_url", "console_url", "inbound", "catcher", "operator", "customer", "servers",
    }  # fmt: skip
    assert said["smtp"] == {"host": "127.0.0.1", "port": 2525, "tls_port": 4465}
    assert said["catcher"] == {"smtp": "127.0.0.1:2626", "url": "http://127.0.0.1:2627"}
    assert set(said["servers"][0]) == {"id", "kind", "domain", "username", "secret", "api_key"}
    assert demo.read_noted(settings.data) == noted
    text = demo.welcome(noted, settings.data)
    for words in (
        "http://127.0.0.1:8000",
        "swaks --server 127.0.0.1:2525",
        "smtplib",
        "curl http://127.0.0.1:8025/v1/messages",
    ):
        assert words in text


def judged(world: World, mailbox: str, now: float = 0.0) -> int:
    try:
        world.judge(Mailbox.parse(mailbox), now)
    except Refusal as refusal:
        return refusal.why.reply_code
    return 250


def test_the_catcher_answers_as_the_world_does() -> None:
    world = World(random.Random(1))
    assert judged(world, "a@example.net") == 250
    assert judged(world, "a@gone.example") == 550
    assert judged(world, "a@full.example") == 452
    assert [judged(world, "a@grey.example", now) for now in (0, 5, 16)] == [451, 451, 250]
    assert [judged(world, "a@busy.example", now) for now in (5, 30)] == [421, 250]
    assert {judged(world, "a@flaky.example") for _ in range(50)} == {250, 451}
    assert judged(world, "a@picky.example") == 250  # it looks at the content first


def test_the_catcher_listens_on_loopback_only() -> None:
    refuse_other_hosts("127.0.0.1")
    refuse_other_hosts("[::1]")
    for host in ("0.0.0.0", "192.0.2.1", "example.net", ""):
        with pytest.raises(SettingsError, match="loopback only"):
            refuse_other_hosts(host)


def test_what_was_caught_survives_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    box = CaughtBox(tmp_path, 3)
    for number in range(5):
        box.keep("a@acme.example", [f"{number}@example.net"], f"no. {number}", b"Subject: x\r\n\r\n" + b"%d" % number)
    with (tmp_path / "list.jsonl").open("ab") as file:
        file.write(b'{"id":"0000')
    again = CaughtBox(tmp_path, 3)
    assert [one.subject for one in again.listed()] == ["no. 4", "no. 3", "no. 2"]
    assert again.raw(again.listed()[0].id) == b"Subject: x\r\n\r\n4"
    assert again.raw("../list") is None
    assert again.keep("", [], "", b"").id == "000006"
    assert len(list(tmp_path.glob("*.eml"))) == 3


@pytest.mark.row("J7")
def test_the_catchers_page_writes_what_mail_brings_as_text(tmp_path: Path) -> None:
    box = CaughtBox(tmp_path, 10)
    box.keep("<i>@acme.example", ["<script>@x.example"], "<script>alert(1)</script>", b"")
    page = page_of(box.listed())
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_traffic_follows_the_hours() -> None:
    rates = [rate_per_minute(hour) for hour in (3, 9.5, 12, 14.5, 23)]
    night, morning, noon, afternoon, late = rates
    assert night < late < noon < morning
    assert noon < afternoon
    assert all(12 <= rate <= 60 for rate in rates)


def test_traffic_is_mail_that_anybody_might_send() -> None:
    dice, at = random.Random(7), datetime(2026, 1, 5, 9, tzinfo=UTC)
    for _ in range(200):
        sender, recipient, content = device_message(SERVER, dice, at)
        assert sender.endswith("@acme.example")
        assert Mailbox.parse(recipient).domain.endswith((".example", "example.net"))
        assert f"<{sender}>" in content
        assert "{" not in content
    issue = newsletter(SERVER, dice, at)
    assert len({recipient for _, recipient, _ in issue}) == len(issue) > 10
    assert all("X-Postbud-Campaign: 2026-01-05-0900" in content for _, _, content in issue)
