"""Snapshot and delta: a reader sees every change once and in order, whatever is compacted, restarted or torn meanwhile."""

import random
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbud.link.snapshot import DirectoryLog, DirectoryReader, Line
from postbud.model.link import AccountRecord, Change, CommandKind, CommandRecord, Gone, Selector

LATER = datetime(2030, 1, 1, tzinfo=UTC)
Directory = dict[tuple[str, str], object]


def line(seq: int, record: object) -> bytes:
    return msgspec.json.encode({"seq": seq, "record": record})


def account(seq: int, name: str, title: str = "") -> bytes:
    return line(seq, AccountRecord(name, title))


def seqs(folder: Path) -> list[int]:
    with closing(DirectoryReader(folder)) as reader:
        return [change.seq for change in reader.read().changes]


def take(reader: DirectoryReader, known: Directory) -> None:
    if not reader.look():
        return
    news = reader.read()
    if news.whole:
        known.clear()
    for change in news.changes:
        key = msgspec.json.decode(msgspec.json.encode(change), type=Line).key
        if isinstance(change.record, Gone):
            known.pop(key, None)
        else:
            known[key] = change.record


STEPS = st.lists(st.sampled_from(["put", "put", "put", "gone", "compact", "reopen", "restart", "read", "tear"]), max_size=40)


@settings(max_examples=80, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_a_reader_ends_with_what_the_writer_was_told(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], dice: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("replica")
    with closing(DirectoryReader(folder)) as reader, closing(DirectoryReader(folder)) as early:
        play(DirectoryLog(folder), reader, early, steps, dice, folder)


def play(
    log: DirectoryLog, reader: DirectoryReader, early: DirectoryReader, steps: list[str], dice: random.Random, folder: Path
) -> None:
    log.open()
    assert log.seq is None
    log.restart([account(1, "acct_0", "first")], 1)
    truth: Directory = {("account", "acct_0"): AccountRecord("acct_0", "first")}
    known: Directory = {}
    early_known: Directory = {}
    seq = 1
    for number, step in enumerate(steps):
        seq += 1
        name = f"acct_{dice.randrange(5)}"
        if step == "put":
            log.append([account(seq, name, f"{number}")], seq)
            truth["account", name] = AccountRecord(name, f"{number}")
        elif step == "gone":
            log.append([line(seq, Gone("account", name))], seq)
            truth.pop(("account", name), None)
        elif step == "compact":
            log.compact(0.0)
        elif step == "reopen":
            log = DirectoryLog(folder)
            log.open()
        elif step == "restart":
            seq = 1
            log.restart([account(1, name, "again")], 1)
            truth = {("account", name): AccountRecord(name, "again")}
        elif step == "tear":
            with (folder / "directory.delta").open("ab") as file:
                file.write(b'{"seq":99999,"rec')
            log = DirectoryLog(folder)
            log.open()
        else:
            take(reader, known)
            assert known == truth
    for one, its in ((reader, known), (early, early_known)):
        take(one, its)
        assert its == truth
        assert not one.look()
    again = DirectoryLog(folder)
    again.open()
    assert again.seq == log.seq
    assert (folder / "directory.delta").stat().st_mode & 0o777 == 0o600
    assert (folder / "directory.snapshot").stat().st_mode & 0o777 == 0o600


def test_commands_that_expired_and_what_is_gone_leave_with_the_next_snapshot(tmp_path: Path) -> None:
    log = DirectoryLog(tmp_path)
    log.open()
    log.restart([], 0)
    command = CommandRecord("cmd_1", CommandKind.RETRY, Selector(account="acct_a"), LATER)
    log.append([account(1, "acct_a"), line(2, command), account(3, "acct_b"), line(4, Gone("account", "acct_b"))], 4)
    log.compact(LATER.timestamp() - 1)
    assert seqs(tmp_path) == [1, 2]
    log.compact(LATER.timestamp() + 1)
    assert seqs(tmp_path) == [1]
    assert log.seq == 4


def test_a_kind_of_a_newer_console_is_kept_and_passed_over(tmp_path: Path) -> None:
    log = DirectoryLog(tmp_path)
    log.open()
    log.restart([line(1, {"kind": "aura", "id": "x", "glow": 3}), account(2, "acct_a")], 2)
    log.append([line(3, {"kind": "aura", "id": "y"}), account(4, "acct_b")], 4)
    log.compact(0.0)
    assert (tmp_path / "directory.snapshot").read_bytes().count(b'"aura"') == 2
    assert seqs(tmp_path) == [2, 4]


def test_before_the_first_directory_there_is_nothing_to_read(tmp_path: Path) -> None:
    reader = DirectoryReader(tmp_path)
    assert not reader.look()
    assert not reader.read().whole


def test_a_reader_that_opens_between_the_two_renamings_misses_nothing(tmp_path: Path) -> None:
    log = DirectoryLog(tmp_path)
    log.open()
    log.restart([], 0)
    log.append([account(1, "acct_a")], 1)
    old = (tmp_path / "directory.delta").read_bytes()
    log.compact(0.0)
    new = (tmp_path / "directory.delta").read_bytes()
    (tmp_path / "directory.delta").write_bytes(old)  # the snapshot is new already, the delta not yet
    reader = DirectoryReader(tmp_path)
    assert [change.seq for change in reader.read().changes] == [1]
    part = tmp_path / "new"
    part.write_bytes(new)
    part.replace(tmp_path / "directory.delta")
    log.append([account(2, "acct_b")], 2)
    assert reader.look()
    news = reader.read()
    assert not news.whole
    assert [change.seq for change in news.changes] == [2]
    reader.close()


def test_changes_decode_as_the_link_writes_them() -> None:
    change = Change(7, AccountRecord("acct_a", "A"))
    assert msgspec.json.decode(msgspec.json.encode(change), type=Line).key == ("account", "acct_a")
    gone = Change(8, Gone("server", "srv_a"))
    assert msgspec.json.decode(msgspec.json.encode(gone), type=Line).key == ("server", "srv_a")
