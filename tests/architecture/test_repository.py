"""What must not be in the repository, and what every lock file must be."""

import re

from tests.architecture.source import ROOT, tracked_files

# Spelt in parts, so that this file passes its own test.
UNSAFE = re.compile(
    r"(files\.python" + r"hosted\.org|py" + r"pi\.org|registry\.npm" + r"js\.org|registry\.yarn" + r"pkg\.com"
    r"|deb\.deb" + r"ian\.org|/wo" + r"rk/|-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----)"
)
TEXT_ENDINGS = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".in",
    ".json",
    ".yml",
    ".yaml",
    ".cfg",
    ".sh",
    ".js",
    ".mjs",
    ".tsv",
    ".eml",
    "",
}


def test_no_file_names_a_registry_host_a_path_of_one_machine_or_holds_a_key() -> None:
    found = []
    for path in tracked_files():
        if path.suffix not in TEXT_ENDINGS or path.stat().st_size > 2_000_000:
            continue
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            if UNSAFE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_every_requirement_is_locked_with_hashes_and_names_no_index() -> None:
    for name in ("build.txt", "run.txt", "dev.txt"):
        text = (ROOT / "requirements" / name).read_text("utf-8")
        assert not re.search(r"^--?(?!hash)", text, re.MULTILINE), name
        assert "://" not in text, name
        requirements = [block for block in re.split(r"\n(?=\S)", text) if block.strip() and not block.startswith("#")]
        for block in requirements:
            assert re.match(r"[a-z0-9.\-]+(\[[a-z,]+\])?==\S+", block, re.IGNORECASE), block.splitlines()[0]
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_what_the_relay_needs_is_locked_alike_for_running_and_for_testing() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text("utf-8")
        return dict(re.findall(r"^([A-Za-z0-9.\-]+)==(\S+)", text, re.MULTILINE))

    everything = pins("dev.txt")
    for name in ("run.txt", "build.txt"):
        for package, version in pins(name).items():
            assert everything[package] == version, f"{package}: run `make lock`"


def test_what_the_package_depends_on_is_locked() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wanted = re.findall(r'^    "([a-z0-9-]+)>=', project, re.MULTILINE)
    locked = (ROOT / "requirements" / "run.txt").read_text("utf-8")
    assert [name for name in wanted if not re.search(rf"^{name}==", locked, re.MULTILINE)] == []
