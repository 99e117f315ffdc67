"""What no linter knows about files, functions, names and floors."""

import ast
import re

from tests.architecture.source import PURE_FLOORS, SRC, floor_of, functions, python_files, tree

LONGEST_FILE = 500
LONGEST_FUNCTION = 60
LONGEST_WIRING = 100  # `app` only names who gets what; parting the list hides it
NAMED_BY_DJANGO = {"console/sqlite/base.py"}  # it looks for a backend there
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {str(path.relative_to(SRC)): len(path.read_text("utf-8").splitlines()) for path in python_files()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{path.relative_to(SRC)}:{function.lineno} {function.name}": length
        for path in python_files()
        for function in functions(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1)
        > (LONGEST_WIRING if floor_of(path) == "app" else LONGEST_FUNCTION)
    }
    assert long == {}


def test_pure_floors_have_no_async_functions() -> None:
    waiting = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path in python_files()
        if floor_of(path) in PURE_FLOORS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert waiting == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = [path.relative_to(SRC / "postbud").as_posix() for path in python_files() if path.stem in EMPTY_NAMES]
    assert set(empty) - NAMED_BY_DJANGO == set()


def test_every_module_says_what_it_owns() -> None:
    written = [path for path in python_files() if path.stat().st_size and path.parent.name != "migrations"]  # those are made
    silent = [path for path in written if not ast.get_docstring(tree(path))]
    assert [str(path.relative_to(SRC)) for path in silent] == []


SILENCED = re.compile(r"#\s*(?:noqa|type: ignore|pragma: no cover)")
REASONED = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]|pragma: no cover)\W+\w.{6,}")


def test_every_silenced_check_gives_a_reason() -> None:
    silent = []
    for path in python_files():
        above = ""
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            # in a run of lines the first gives the reason
            if SILENCED.search(line) and not REASONED.search(line) and not SILENCED.search(above):
                silent.append(f"{path.relative_to(SRC)}:{number}")
            above = line
    assert silent == []
