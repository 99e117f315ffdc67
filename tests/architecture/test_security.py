"""The table of security requirements names code and tests that exist."""

import re

from tests.architecture.source import ROOT

PAGE = ROOT / "docs" / "asvs.md"
_ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (.+) \| (.+) \| `([^`]+)` \|$", re.MULTILINE)


def test_every_requirement_has_code_and_a_test_that_exist() -> None:
    text = PAGE.read_text("utf-8")
    rows = _ROW.findall(text)
    assert len(rows) == sum(line.startswith("| ") for line in text.splitlines()) - 1
    for number, _, where, test in rows:
        for path in re.findall(r"`([^`]+)`", where):
            assert (ROOT / path).exists(), (number, path)
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), (number, path)
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), (number, test)
    assert len({number for number, *_ in rows}) == len(rows)
