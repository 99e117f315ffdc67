"""accounts.toml: what it may say, and what a person hears who said it wrong."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postbud.link.file import FileFollower, fingerprint, load, load_or_last_good
from postbud.link.replica import Directory, Replica
from postbud.model.ids import AccountId
from postbud.model.settings import SettingsError

GOOD_HASH = "sha256$00ff$" + "0" * 64


def read(folder: Path, text: str, problem: str | None = None) -> Directory:
    path = folder / "accounts.toml"
    path.write_text(text)
    return load(path, lambda pem: problem)


def credential(*lines: str) -> str:
    head = [
        "[[account]]",
        'id = "acct_a"',
        "[[account.server]]",
        'id = "srv_a"',
        "[[account.server.credential]]",
        'id = "crd_a"',
    ]
    return "\n".join([*head, *lines]) + "\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[[acount]]\nid = "a"', r"unknown key `acount`; did you mean `account`\?"),
        ('[[account]]\nid = "a"\nstate = "active"', r"account: unknown key `state`; did you mean `status`\?"),
        ('[[account]]\nid = "a"\n[[account.domian]]\nname = "x.example"', r"unknown key `domian`; did you mean `domain`\?"),
        (credential('user_name = "x"'), r"unknown key `user_name`; did you mean `username`\?"),
        (credential("hourlycap = 3"), r"unknown key `hourlycap`; did you mean `hourly_cap`\?"),
        ('[[account]]\nid = "a"\nzzzzzz = 1', r"unknown key `zzzzzz`; known here: .*status"),
    ],
)
def test_an_unknown_key_names_its_nearest_neighbour(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=r"^accounts\.toml: .*" + wanted):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[[account", "accounts.toml: "),
        ("[[account]]\nname = 'no id'", "id"),
        ("[[account]]\nid = 'a'\nstatus = 'asleep'", "asleep"),
        ("[[account]]\nid = 'a'\n[[account.domain]]\nname = 'under_score..example'", "domain 'under_score..example'"),
        (credential("networks = ['192.0.2.0/23']"), "192.0.2.0/23 is wider than /24"),
        (credential("networks = ['2001:db8::/48']"), "2001:db8::/48 is wider than /56"),
        (credential("networks = ['192.0.2.7/24']"), "credential crd_a: network 192.0.2.7/24 has host bits"),
        (credential("networks = ['::ffff:192.0.2.0/120']"), "write an IPv4-mapped network as IPv4"),
        (credential(), "needs a username"),
        (credential("username = 'one'"), "go together"),
        (credential(f"secret_hash = '{GOOD_HASH}'"), "go together"),
        (credential("username = 'one'", "secret_hash = 'plain text'"), "postbud credential hash"),
        (credential("username = 'one'", "secret_hash = 'sha256$zz$" + "0" * 64 + "'"), "postbud credential hash"),
        (credential(f"username = 'one'\nsecret_hash = '{GOOD_HASH}'\nallow_from = ['no mailbox']"), "accounts.toml: "),
        ("[[policy]]\nrule = 'C7-FROM'\nmode = 'loud'", "off, shadow, enforce"),
        ("suppression_file = 'none.txt'", "none.txt"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_place(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=r"accounts\.toml") as caught:
        read(tmp_path, text)
    assert wanted in str(caught.value)


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load(tmp_path / "none.toml", lambda pem: None)


@pytest.mark.row("61")
def test_a_key_that_is_missing_or_broken_stops_no_load_and_says_why(tmp_path: Path) -> None:
    text = "[[account]]\nid = 'acct_a'\n[[account.domain]]\nname = 'a.example'\n[[account.domain.dkim]]\nselector = 's1'\n"
    text += "key_file = 'a.pem'\n"
    missing = load_key(read(tmp_path, text))
    assert missing[0] is None
    assert "a.pem" in (missing[1] or "")
    (tmp_path / "a.pem").write_bytes(b"no key")
    assert load_key(read(tmp_path, text, "is no PEM")) == (None, "is no PEM")
    assert load_key(read(tmp_path, text)) == (b"no key", None)


def load_key(directory: Directory) -> tuple[bytes | None, str | None]:
    key = directory.accounts[AccountId("acct_a")].domains[0].keys[0]
    return key.pem, key.problem


def test_suppressions_are_mailboxes_with_comments_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "suppress.txt"
    path.write_text("# people\n\nANN@Dest.Example  # left\nbo@dest.example\n")
    directory = read(tmp_path, "suppression_file = 'suppress.txt'")
    assert directory.is_suppressed(AccountId("acct_any"), "ann@dest.example")
    path.write_text("ann@dest.example\n@nobody\n")
    with pytest.raises(SettingsError, match=r"suppress\.txt line 2"):
        read(tmp_path, "suppression_file = 'suppress.txt'")


ONE_KEY = "[[account]]\nid = 'acct_a'\n[[account.domain]]\nname = 'a.example'\n"


def writes_meanwhile(path: Path) -> Callable[[bytes], str | None]:
    """Give a check of keys during which somebody writes the directory file: the load has read it by then."""

    def check(_: bytes) -> str | None:
        path.write_text("[[account")
        return None

    return check


def test_what_is_kept_is_what_was_loaded_though_the_file_was_written_meanwhile(tmp_path: Path) -> None:
    path, kept = tmp_path / "accounts.toml", tmp_path / "data" / "directory-0.toml"
    good = ONE_KEY + "[[account.domain.dkim]]\nselector = 's1'\nkey_file = 'a.key'\n"
    path.write_text(good)
    (tmp_path / "a.key").write_bytes(b"key")
    directory, problem = load_or_last_good(path, kept, writes_meanwhile(path))
    assert (load_key(directory), problem) == ((b"key", None), None)
    assert kept.read_text() == good
    assert kept.stat().st_mode & 0o077 == 0
    again, problem = load_or_last_good(path, kept, lambda _: None)
    assert load_key(again) == (b"key", None)
    assert "accounts.toml" in (problem or "")


def test_what_the_follower_keeps_is_what_it_loaded(tmp_path: Path) -> None:
    path, kept = tmp_path / "accounts.toml", tmp_path / "directory-0.toml"
    path.write_text("")
    good = ONE_KEY + "[[account.domain.dkim]]\nselector = 's1'\nkey_file = 'a.key'\n"
    (tmp_path / "a.key").write_bytes(b"key")
    replica, problems = Replica(load(path, lambda _: None)), list[str]()
    follower = FileFollower(path, kept, replica, writes_meanwhile(path), problems.append, seen=fingerprint(path))

    async def follow() -> None:
        task = asyncio.create_task(follower.run())
        path.write_text(good)
        async with asyncio.timeout(10):
            while not problems:
                await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(follow())
    assert load_key(replica.directory) == (b"key", None)
    assert kept.read_text() == good


@pytest.mark.parametrize(
    "names_it",
    [
        "[[account.domain.dkim]]\nselector = 's1'\nkey_file = 'keys/signing'",
        "dkim = [{selector = 's1', key_file = 'keys/signing'}]",
        "dkim = [{selector = 's1', \"key_file\" = 'keys/signing'}]",
    ],
)
def test_a_key_file_of_any_name_is_watched_however_it_is_named(tmp_path: Path, names_it: str) -> None:
    path, key = tmp_path / "accounts.toml", tmp_path / "keys" / "signing"
    path.write_text(ONE_KEY + names_it + "\n")
    key.parent.mkdir()
    key.write_bytes(b"old")
    assert load_key(load(path, lambda _: None)) == (b"old", None)
    before = fingerprint(path)
    assert fingerprint(path) == before
    key.write_bytes(b"newer")
    after = fingerprint(path)
    assert after != before
    key.unlink()
    assert fingerprint(path) != after


def test_a_new_worker_starts_from_the_newest_copy_of_another_and_without_any_it_does_not(tmp_path: Path) -> None:
    path, kept = tmp_path / "accounts.toml", tmp_path / "replica" / "directory-7.toml"
    path.write_text("[[account")
    with pytest.raises(SettingsError, match=r"accounts\.toml"):
        load_or_last_good(path, kept, lambda _: None)
    kept.parent.mkdir()
    for number, at in ((0, 1_000), (1, 3_000), (2, 2_000)):
        copy = kept.with_name(f"directory-{number}.toml")
        copy.write_text(f"[[account]]\nid = 'acct_{number}'\n")
        os.utime(copy, (at, at))
    directory, problem = load_or_last_good(path, kept, lambda _: None)
    assert list(directory.accounts) == ["acct_1"]
    assert "accounts.toml" in (problem or "")


def test_a_look_reads_the_file_for_names_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text('key_file = "one.key"\n')
    before = fingerprint(path)
    assert [name for name, *_ in before] == ["", "one.key"]
    (tmp_path / "one.key").write_text("now it is there")
    after = fingerprint(path, before)
    assert after != before
    assert fingerprint(path, after) == after
    path.write_text('key_file = "another.key"\n')
    assert [name for name, *_ in fingerprint(path, after)] == ["", "another.key"]
    path.unlink()
    assert fingerprint(path, after) == (("", 0, 0, 0),)
