"""The disk under a spool: its lock, its free space, its reserve, and what its errors mean.

Owns the lock file (one process a folder, by flock, so that kill -9 lets go), and the reserve: a file whose blocks are given
back when a delivery's result cannot be written (rows 18, 19), and taken again when there is room.
"""

import errno
import fcntl
import os
from pathlib import Path

from postbud.spool.values import SpoolLocked

DAMAGE_MARK = "check-me"  # left by a writer that met a damaged page: the next check is thorough and has no time limit
_RESERVE_NAME = "reserve"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_full(error: OSError) -> bool:
    """Tell a full disk from a failing one."""
    return error.errno in _FULL


def is_short(error: BaseException) -> bool:
    """Tell a process or machine short of descriptors or memory from a disk that fails: it passes, nothing is lost (row 20)."""
    return isinstance(error, OSError) and error.errno in _SHORT


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FolderLock:
    """The right to a spool's folder, until released or the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            SpoolLocked: Another process has it; the text names it where the file tells.
        """
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise SpoolLocked(f"{folder} is in use by process {owner or 'unknown'}") from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode("ascii"), 0)
        except OSError:  # on a full disk the name of the owner is all that is missing
            os.ftruncate(self._fd, 0)

    def release(self) -> None:
        """Let go."""
        os.close(self._fd)


def drop_reserve(folder: Path) -> None:
    """Give back a reserve of the last process with its inode; it is made anew when there is room."""
    (folder / _RESERVE_NAME).unlink(missing_ok=True)


class Reserve:
    """Space kept back for results of deliveries, and the watch over what is free."""

    def __init__(self, folder: Path, file_octets: int, free_octets: int, free_inodes: int) -> None:
        """Look once. `free_octets` and `free_inodes` are what accept needs to find free."""
        self._folder = folder
        self._path = folder / _RESERVE_NAME
        self._file_octets = file_octets
        self._free_octets = free_octets
        self._free_inodes = free_inodes
        self.has_space = False
        self.check()

    def check(self) -> bool:
        """Look at the disk, remake the reserve when there is room, and tell whether accept may go on."""
        stat = os.statvfs(self._folder)
        free = stat.f_bavail * stat.f_frsize
        inodes_out = stat.f_files > 0 and stat.f_favail < self._free_inodes
        self.has_space = free >= self._free_octets and not inodes_out
        if self.has_space and free >= self._free_octets + self._file_octets:
            self._make()
        return self.has_space

    def give_back(self) -> None:
        """Free the reserve's blocks. Until the next good check nothing is accepted."""
        self.has_space = False
        if self._path.exists():
            os.truncate(self._path, 0)

    def _make(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < self._file_octets:
                os.posix_fallocate(fd, 0, self._file_octets)
        except OSError as error:
            os.ftruncate(fd, 0)
            if not is_full(error):
                raise
        finally:
            os.close(fd)
