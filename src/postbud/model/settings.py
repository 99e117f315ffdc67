"""Settings files: one way from a decoded TOML tree to typed values, with errors that a person can act on."""

import difflib
from typing import Any, TypeVar, get_args

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class SettingsError(ValueError):
    """A settings file says something that cannot be; the text names the file, the key and the mend."""


def convert(tree: dict[str, Any], kind: type[T], name: str) -> T:
    """Turn a decoded tree into a struct.

    Raises:
        SettingsError: An unknown key (with its nearest neighbour) or a value of the wrong kind (with its place).
    """
    _refuse_unknown(tree, kind, name)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {error}") from error


def _refuse_unknown(tree: Any, kind: Any, place: str) -> None:
    if isinstance(tree, list):
        for member in tree:
            _refuse_unknown(member, kind, place)
        return
    struct = _struct_in(kind)
    if struct is None or not isinstance(tree, dict):
        return
    known = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in tree.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
            raise SettingsError(f"{place}: unknown key `{key}`; {hint}")
        _refuse_unknown(value, known[key], f"{place}: {key}")


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for found in map(_struct_in, get_args(kind)) if found is not None), None)
