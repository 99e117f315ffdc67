"""The token key file of a standalone relay: made when missing, one `id hex` a line, the last line makes new tokens."""

import os
import secrets
from pathlib import Path

from postbud.model.settings import SettingsError
from postbud.model.token import TokenKeys

_KEY_OCTETS = 32


def load_token_keys(path: Path) -> TokenKeys:
    """Read the keys, making the file (mode 0600) when it is missing. Safe when several processes do so at once.

    Raises:
        SettingsError: The file is not what it should be.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"0 {secrets.token_hex(_KEY_OCTETS)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(made, path)  # whoever is first wins; a rename would replace a key that is already in use
        except FileExistsError:
            pass
        finally:
            made.unlink()
    keys: dict[int, bytes] = {}
    current = 0
    for line in path.read_text(encoding="ascii").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            number, text = line.split()
            current, key = int(number), bytes.fromhex(text)
        except ValueError as error:
            raise SettingsError(f"{path.name}: each line is `id hex`") from error
        if not 0 <= current <= 15 or len(key) < _KEY_OCTETS:
            raise SettingsError(f"{path.name}: ids are 0 to 15, keys 32 octets or more")
        keys[current] = key
    if not keys:
        raise SettingsError(f"{path.name}: holds no key")
    return TokenKeys(keys, current)
