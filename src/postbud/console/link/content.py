"""Content that relays send up: of sandbox servers, of servers that keep content, of held and of inbound mail.

One sealed file a message, `DATA/content/<account>/<shard>/<message>`, and one row that says it is there. The file is synced
before the row is committed; a file without a row is left over from a crash and cleared by age. Nobody reads another account's
content: the account is part of the path, of the row's key and of what the seal binds.
"""

import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from postbud.console.installation import installation_key
from postbud.console.link.models import Content
from postbud.console.transaction import write
from postbud.model.sealed import NONCE_OCTETS, seal, unseal

MAX_OCTETS = 64 * 1024 * 1024
_ID = re.compile(r"[a-z]{2,8}_[0-9A-Za-z]{1,56}")
_SHARD = slice(-2, None)


class ContentError(ValueError):
    """What was sent is not to be kept; the text says why."""


class ContentStore:
    """The folder and its rows."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, `DATA/content`; it is made when needed."""
        self._folder = folder

    def put(self, account: str, server: str, message: str, octets: bytes, now: datetime) -> None:
        """Keep a content. Again is harmless: the first one stays.

        Raises:
            ContentError: An id is none, or the content is too large.
            OSError: The disk does not take it.
        """
        if len(octets) > MAX_OCTETS:
            raise ContentError(f"a content has at most {MAX_OCTETS} octets")
        path = self._path(account, message)
        if Content.objects.filter(account=account, message=message).exists():
            return
        sealed = seal(installation_key(), _record(account, message), octets, secrets.token_bytes(NONCE_OCTETS))
        _write(path, sealed)
        with write():
            if not Content.objects.filter(account=account, message=message).exists():
                Content.objects.create(account=account, message=message, server=server, at=now, octets=len(octets))

    def read(self, account: str, message: str) -> bytes | None:
        """Give a content of an account, None when it is not kept.

        Raises:
            SealError: The file is not what was put there.
        """
        try:
            path = self._path(account, message)
        except ContentError:
            return None
        if not Content.objects.filter(account=account, message=message).exists():
            return None
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return None
        return unseal(installation_key(), _record(account, message), sealed)

    def delete(self, account: str, messages: list[str]) -> int:
        """Forget contents of an account: the rows first, then the files."""
        with write():
            known = list(Content.objects.filter(account=account, message__in=messages).values_list("message", flat=True))
            Content.objects.filter(account=account, message__in=known).delete()
        for message in known:
            self._path(account, message).unlink(missing_ok=True)
        return len(known)

    def clear_leftovers(self, now: datetime, age: timedelta) -> int:
        """Delete files of that age that no row names: a crash left them, or a deletion was cut short."""
        cleared = 0
        for path in self._files():
            try:
                old = now.timestamp() - path.stat().st_mtime > age.total_seconds()
            except FileNotFoundError:
                continue
            account = path.parent.parent.name
            if old and (path.name.startswith(".") or not Content.objects.filter(account=account, message=path.name).exists()):
                path.unlink(missing_ok=True)
                cleared += 1
        return cleared

    def _files(self) -> Iterator[Path]:
        return self._folder.glob("*/*/*")

    def _path(self, account: str, message: str) -> Path:
        for text in (account, message):
            if not _ID.fullmatch(text):
                raise ContentError("not an id")
        return self._folder / account / message[_SHARD] / message


def _record(account: str, message: str) -> str:
    return f"content/{account}/{message}"


def _write(path: Path, octets: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
