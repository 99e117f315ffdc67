"""The source as the architecture tests see it: files, trees, and what they define."""

import argparse
import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PACKAGE = SRC / "postbud"
DOCS = ROOT / "docs"
PURE_FLOORS = ("model", "wire", "mime", "policy", "shaping", "bounce")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def python_files() -> tuple[Path, ...]:
    """Every module of the package."""
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """Dotted name of a module, without `postbud.`: `wire.command`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(path: Path) -> str:
    """The first package below `postbud`, or the empty string."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def strings(path: Path) -> Iterator[str]:
    """Every string constant of a module that is not a docstring; octets too, as text."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def page(name: str) -> str:
    """The text of a page of the docs."""
    return (DOCS / name).read_text(encoding="utf-8")


def named_in(text: str) -> set[str]:
    """What a page names in backticks: whole, and without arguments or the value behind `=`."""
    quoted = set(re.findall(r"`([^`\n]+)`", text))
    return quoted | {re.split(r"[\s=(]", name, maxsplit=1)[0] for name in quoted}


def exists(name: str) -> bool:
    """Whether a dotted name of ours, without `postbud.`, stands for something: module, class, function, method, constant."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        base = PACKAGE.joinpath(*parts[:cut])
        module = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if module.is_file():
            return _defines(tree(module).body, parts[cut:])
    return False


def _defines(body: list[ast.stmt], path: list[str]) -> bool:
    if not path:
        return True
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == path[0]:
            return _defines(node.body, path[1:]) or (len(path) == 2 and _sets_attribute(node, path[1]))
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if len(path) == 1 and any(isinstance(target, ast.Name) and target.id == path[0] for target in targets):
            return True
    return False


def _sets_attribute(node: ast.stmt, name: str) -> bool:
    return any(isinstance(inner, ast.Attribute) and inner.attr == name for inner in ast.walk(node))


def settings_structs() -> dict[str, list[str]]:
    """The classes that a settings file is read into, with their keys: `link.file.ServerEntry` → its keys."""
    found: dict[str, list[str]] = {}
    for path in (PACKAGE / "app" / "config.py", PACKAGE / "link" / "file.py"):
        module = importlib.import_module(f"postbud.{name_of(path)}")
        for name, value in vars(module).items():
            ours = isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
            if ours and value.__struct_config__.forbid_unknown_fields:
                found[f"{name_of(path)}.{name}"] = [field.encode_name for field in msgspec.structs.fields(value)]
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of the command line with its options: ("queue list", ["--json", …])."""
    if not (PACKAGE / "app" / "cli.py").is_file():
        return
    parser = importlib.import_module("postbud.app.cli")._parser()
    yield from _commands(parser, "")


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, list[str]]]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for word, below in action.choices.items():
            yield from _commands(below, f"{name} {word}".strip())
    if not inner:
        yield name, [option for action in parser._actions for option in action.option_strings if option.startswith("--")]


def metrics() -> set[str]:
    """Names of metrics: every string that looks like one. The console counts nothing: its names are Django's attributes."""
    files = [path for path in python_files() if floor_of(path) != "console"]
    return {text for path in files for text in strings(path) if re.fullmatch(r"postbud_[a-z0-9_]+", text)}


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every text file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())
