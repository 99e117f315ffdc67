"""Address sets: what goes in is found, what leaves is not, whatever was merged, restarted or torn between."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbud.link.sets import HashedSets, SetLog, SetReader, hash_mailbox
from postbud.model.ids import AccountId
from postbud.model.link import SetChange

HASHES = st.integers(0, 40) | st.integers(0, (1 << 64) - 1)


def page(hashes: set[int]) -> bytes:
    return b"".join(hashed.to_bytes(8, "big") for hashed in sorted(hashes))


def loaded(folder: Path, sets: dict[str, set[int]], seq: int) -> SetLog:
    log = SetLog(folder)
    log.open()
    load = log.begin_load()
    for name, hashes in sets.items():
        load.add(name, page(hashes))
    log.finish(load, seq)
    return log


@settings(max_examples=60, deadline=None)
@given(st.sets(HASHES, max_size=60), st.lists(st.tuples(HASHES, st.booleans()), max_size=60), st.data())
def test_a_reader_holds_what_the_changes_left(
    tmp_path_factory: pytest.TempPathFactory, first: set[int], changes: list[tuple[int, bool]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sets")
    log = loaded(folder, {"platform": first}, 1)
    reader = SetReader(folder)
    expected = set(first)
    for number, (hashed, present) in enumerate(changes, 2):
        log.append([SetChange(number, "platform", hashed, present)], number)
        (expected.add if present else expected.discard)(hashed)
        if data.draw(st.integers(0, 9)) == 0:
            log.merge()
        if data.draw(st.integers(0, 9)) == 0:
            log = SetLog(folder)
            log.open()
        if data.draw(st.booleans()) and reader.look():
            reader.read()
    reader.read()
    assert {
        hashed for hashed in expected | first | {each for each, _ in changes} if reader.holds("platform", hashed)
    } == expected
    assert not reader.holds("acct_other", next(iter(expected), 0))
    assert log.seq == len(changes) + 1
    log.merge()
    (file,) = (folder / "sets").glob("platform.*.set")
    assert file.read_bytes() == page(expected)


def test_pages_of_several_sets_are_loaded_side_by_side_and_put_in_force_at_once(tmp_path: Path) -> None:
    log = loaded(tmp_path, {"platform": {1}}, 5)
    reader = SetReader(tmp_path)
    reader.read()
    load = log.begin_load()
    for start in (10, 20):
        for name in ("platform", "acct_a/1"):
            load.add(name, page(set(range(start, start + 5))))
    assert not reader.look()
    log.finish(load, 9)
    assert reader.look()
    reader.read()
    assert not reader.look()
    assert reader.seq == 9
    assert [reader.holds("acct_a/1", hashed) for hashed in (1, 10, 24, 25)] == [False, True, True, False]
    assert not reader.holds("platform", 1)
    assert sorted(path.suffix for path in (tmp_path / "sets").iterdir()) == [".delta", ".json", ".set", ".set"]


def test_a_torn_line_counts_for_nobody_and_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    log = loaded(tmp_path, {}, 1)
    log.append([SetChange(2, "platform", 7, True)], 2)
    (delta,) = (tmp_path / "sets").glob("*.delta")
    whole = delta.read_bytes()
    delta.write_bytes(whole + b'{"seq":3,"name":"platform","ha')
    reader = SetReader(tmp_path)
    reader.read()
    assert reader.holds("platform", 7)
    again = SetLog(tmp_path)
    again.open()
    assert again.seq == 2
    assert delta.read_bytes() == whole
    again.append([SetChange(3, "platform", 8, True)], 3)
    reader.read()
    assert reader.holds("platform", 8)


def test_suppressions_are_asked_by_the_platforms_key_and_the_accounts(tmp_path: Path) -> None:
    keys = {"platform": b"p" * 32, "acct_a": b"a" * 32}
    log = loaded(
        tmp_path,
        {
            "platform": {hash_mailbox(keys["platform"], "all@example.org")},
            "acct_a": {hash_mailbox(keys["acct_a"], "one@example.org")},
            "acct_b": {hash_mailbox(b"b" * 32, "two@example.org")},
        },
        1,
    )
    reader = SetReader(tmp_path)
    reader.read()
    sets = HashedSets(reader, keys)
    a, b = AccountId("acct_a"), AccountId("acct_b")
    asked = [(a, "all@example.org"), (b, "all@example.org"), (a, "one@example.org"), (b, "one@example.org")]
    assert [sets.hold(*each) for each in asked] == [True, True, True, False]
    assert not sets.hold(b, "two@example.org"), "its key is not here"
    assert log.seq == 1


def test_a_set_of_a_million_is_merged_and_asked_quickly(tmp_path: Path) -> None:
    dice = random.Random(7)
    hashes = sorted(dice.getrandbits(64) for _ in range(100_000))
    log = SetLog(tmp_path)
    log.open()
    load = log.begin_load()
    load.add("platform", b"".join(hashed.to_bytes(8, "big") for hashed in hashes))
    log.finish(load, 1)
    log.append([SetChange(number, "platform", dice.getrandbits(64), True) for number in range(2, 1002)], 1001)
    log.merge()
    reader = SetReader(tmp_path)
    reader.read()
    assert all(reader.holds("platform", hashed) for hashed in hashes[::97])
    assert (next((tmp_path / "sets").glob("*.set"))).stat().st_size == 8 * 101_000
