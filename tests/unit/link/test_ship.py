"""Event files: torn lines, restarts, rotation, disks that refuse."""

import json
from pathlib import Path

import pytest

from postbud.link.ship import FileShipper, ShipSettings, last_shipped, rotated

SPOOL = 77


class Store:
    """Events of a spool, as `Spool.events_after` gives them."""

    def __init__(self, count: int) -> None:
        self.events = [(seq, json.dumps({"id": f"evt_{seq}", "kind": "accepted"}).encode()) for seq in range(1, count + 1)]

    async def read(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        return [event for event in self.events if event[0] > after][:limit]

    async def prune(self, seq: int, before: float) -> int:
        return 0


def shipper(folder: Path, store: Store, *, file_octets: int = 1 << 20, files: int = 2) -> FileShipper:
    settings = ShipSettings(folder, "worker-0", SPOOL, file_octets, files, 0.0)
    made = FileShipper(settings, store.read, store.prune, lambda: 0.0)
    made.seq = last_shipped(folder, "worker-0", SPOOL)
    return made


def numbers(folder: Path) -> list[int]:
    """Give the numbers of all lines; every line must be whole."""
    lines = []
    for path in (*rotated(folder, "worker-0"), folder / "worker-0.jsonl"):
        if path.exists():
            assert path.read_bytes()[-1:] in (b"\n", b"")
            lines += [json.loads(line) for line in path.read_bytes().splitlines()]
    assert all(line["spool"] == SPOOL and line["id"] == f"evt_{line['seq']}" for line in lines)
    return [line["seq"] for line in lines]


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
async def test_a_torn_last_line_is_cut_and_written_again_once(tmp_path: Path, cut: int) -> None:
    await shipper(tmp_path, Store(5)).ship_once()
    path = tmp_path / "worker-0.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = shipper(tmp_path, Store(7))
    await again.ship_once()
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_restart_writes_nothing_twice(tmp_path: Path) -> None:
    store = Store(10)
    for _ in range(3):
        one = shipper(tmp_path, store)
        await one.ship_once()
        assert await one.ship_once() == 0
    assert numbers(tmp_path) == list(range(1, 11))


async def test_rotation_keeps_the_newest_files_and_no_line_twice(tmp_path: Path) -> None:
    for count in range(1, 8):
        await shipper(tmp_path, Store(count), file_octets=1, files=3).ship_once()
    assert len(rotated(tmp_path, "worker-0")) == 3
    assert numbers(tmp_path) == [4, 5, 6, 7]
    await shipper(tmp_path, Store(9)).ship_once()
    assert numbers(tmp_path) == [4, 5, 6, 7, 8, 9]


async def test_a_file_torn_in_its_only_line_leads_back_to_the_rotated_one(tmp_path: Path) -> None:
    await shipper(tmp_path, Store(3), file_octets=1).ship_once()
    (tmp_path / "worker-0.jsonl").write_bytes(b'{"seq":4,"spool":77,"id"')
    await shipper(tmp_path, Store(4)).ship_once()
    assert numbers(tmp_path) == [1, 2, 3, 4]


async def test_lines_of_another_spool_do_not_count_as_ours(tmp_path: Path) -> None:
    (tmp_path / "worker-0.jsonl").write_bytes(b'{"seq":400,"spool":5,"id":"evt_400"}\n')
    assert last_shipped(tmp_path, "worker-0", SPOOL) == 0
    assert last_shipped(tmp_path, "worker-0", 5) == 400


async def test_more_than_a_page_goes_in_pages(tmp_path: Path) -> None:
    one = shipper(tmp_path, Store(2500))
    assert [await one.ship_once() for _ in range(4)] == [1000, 1000, 500, 0]
    assert numbers(tmp_path) == list(range(1, 2501))
    assert one.shipped == 2500


@pytest.mark.parametrize("at", [0, 3, 7])
async def test_a_hole_that_power_loss_left_is_cut_off_with_what_stands_behind_it(tmp_path: Path, at: int) -> None:
    await shipper(tmp_path, Store(8)).ship_once()
    path = tmp_path / "worker-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[at] = bytes(len(lines[at]))
    path.write_bytes(b"".join(lines))
    await shipper(tmp_path, Store(9)).ship_once()
    assert numbers(tmp_path) == list(range(1, 10))


async def test_a_hole_far_from_the_end_of_a_large_file_is_found(tmp_path: Path) -> None:
    store = Store(40_000)
    one = shipper(tmp_path, store, file_octets=1 << 30)
    while await one.ship_once():
        pass
    path = tmp_path / "worker-0.jsonl"
    assert path.stat().st_size > 2 << 20
    octets = bytearray(path.read_bytes())
    octets[100_000:104_096] = bytes(4096)
    path.write_bytes(octets)
    two = shipper(tmp_path, store, file_octets=1 << 30)
    assert two.seq < 3_000
    while await two.ship_once():
        pass
    assert numbers(tmp_path) == list(range(1, 40_001))


async def test_zeros_without_an_end_are_cut_off(tmp_path: Path) -> None:
    await shipper(tmp_path, Store(100)).ship_once()
    path = tmp_path / "worker-0.jsonl"
    path.write_bytes(path.read_bytes() + bytes(1_500_000))
    await shipper(tmp_path, Store(101)).ship_once()
    assert numbers(tmp_path) == list(range(1, 102))


async def test_a_rotation_that_fails_writes_no_page_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await shipper(tmp_path, Store(10), file_octets=1).ship_once()
    two = shipper(tmp_path, Store(12), file_octets=1)

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="Too many"):
                await two.ship_once()
    await two.ship_once()
    assert numbers(tmp_path) == list(range(1, 13))
