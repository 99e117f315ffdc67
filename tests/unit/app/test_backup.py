"""What a backup must be before anything is put in place."""

import hashlib
import tarfile
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from postbud.app.backup import Manifest, unpack
from postbud.app.locks import held, roles_held
from postbud.model.settings import SettingsError

FILES = {"console.db": b"a database", "keys/installation.key": b"k" * 32}


def write_tar(path: Path, members: dict[str, bytes], *, manifest: Manifest | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, octets in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(octets)
            tar.addfile(entry, BytesIO(octets))
        if manifest is not None:
            octets = msgspec.json.encode(manifest)
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(octets)
            tar.addfile(entry, BytesIO(octets))
    return path


def manifest_of(files: dict[str, bytes], version: int = 1) -> Manifest:
    sums = {name: (hashlib.sha256(octets).hexdigest(), len(octets)) for name, octets in files.items()}
    return Manifest(version, "0.1.0", "2026-01-01T00:00:00+00:00", "relay.example", "sqlite", [], sums)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "staged"
    folder.mkdir()
    return folder


def test_a_whole_backup_is_taken(tmp_path: Path, staged: Path) -> None:
    manifest = unpack(write_tar(tmp_path / "b.tar", FILES, manifest=manifest_of(FILES)), staged)
    assert (staged / "keys" / "installation.key").read_bytes() == b"k" * 32
    assert set(manifest.files) == set(FILES)


@pytest.mark.row("62")
@pytest.mark.parametrize(
    ("members", "manifest", "said"),
    [
        (FILES | {"console.db": b"another one"}, manifest_of(FILES), "console.db is damaged"),
        (FILES, None, "ends before its manifest"),
        ({"console.db": FILES["console.db"]}, manifest_of(FILES), "not those of its manifest"),
        (FILES | {"more": b""}, manifest_of(FILES), "not those of its manifest"),
        (FILES, manifest_of(FILES, 2), "format 2"),
        ({"../evil": b"x"}, manifest_of({}), "no whole backup"),
        ({"/etc/evil": b"x"}, manifest_of({}), "not those of its manifest"),
    ],
    ids=["damaged", "cut off", "a file less", "a file more", "newer", "a path above", "a path from the root"],
)
def test_a_backup_that_is_not_whole_is_refused(
    tmp_path: Path, staged: Path, members: dict[str, bytes], manifest: Manifest | None, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        unpack(write_tar(tmp_path / "b.tar", members, manifest=manifest), staged)
    assert not (tmp_path / "evil").exists()


def test_a_torn_file_is_refused(tmp_path: Path, staged: Path) -> None:
    path = write_tar(tmp_path / "b.tar", {"console.db": bytes(100_000)}, manifest=manifest_of({"console.db": bytes(100_000)}))
    for octets in (0, 700, 50_000):
        path.write_bytes(path.read_bytes()[:octets] if octets else b"")
        with pytest.raises(SettingsError):
            unpack(path, staged)


def test_two_supervisors_do_not_play_one_role(tmp_path: Path) -> None:
    with roles_held(tmp_path, ("relay",)):
        with pytest.raises(SettingsError, match="another postbud runs as relay"), roles_held(tmp_path, ("console", "relay")):
            pass
        with roles_held(tmp_path, ("console",)):
            pass
    with roles_held(tmp_path, ("relay", "console")), held(tmp_path / "run" / "upgrade.lock"):
        pass
