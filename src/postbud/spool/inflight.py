"""Which deliveries are being worked on, in a file that outlives a crash of the process (row 56).

One mmapped page table of 16-octet slots; entering and leaving cost a microsecond and no system call. It is not synced: a
power loss is no crash of ours. The spool reads at open what the last process left in it.
"""

import mmap
import os
from pathlib import Path

from postbud.model.ids import ID_OCTETS, DeliveryId, to_octets, to_text

_SLOTS = 8192
_EMPTY = bytes(ID_OCTETS)


class InFlight:
    """The deliveries in dangerous hands. More than there are slots are not noted: the oldest matter as much as any."""

    def __init__(self, path: Path) -> None:
        """Map the file, making it when missing; `left_over` is what the last process was at."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._map = mmap.mmap(fd if _allocated(fd) else -1, _SLOTS * ID_OCTETS)
        finally:
            os.close(fd)
        noted = (self._map[at : at + ID_OCTETS] for at in range(0, _SLOTS * ID_OCTETS, ID_OCTETS))
        self.left_over = [DeliveryId(to_text("dlv", octets)) for octets in noted if octets != _EMPTY]
        self._free = list(range(0, _SLOTS * ID_OCTETS, ID_OCTETS))
        self._slots: dict[DeliveryId, int] = {}

    def clear(self) -> None:
        """Forget what the last process left, once it is recorded elsewhere."""
        self._map[:] = bytes(len(self._map))
        self.left_over = []

    def enter(self, delivery: DeliveryId) -> None:
        """Note that work on a delivery begins. Entering twice counts once."""
        if self._free and delivery not in self._slots:
            at = self._free.pop()
            self._map[at : at + ID_OCTETS] = to_octets(delivery)
            self._slots[delivery] = at

    def leave(self, delivery: DeliveryId) -> None:
        """Note that it ended, however it did."""
        at = self._slots.pop(delivery, None)
        if at is not None:
            self._map[at : at + ID_OCTETS] = _EMPTY
            self._free.append(at)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()


def _allocated(fd: int) -> bool:
    """Give the file its blocks: a hole in a mapped file on a full disk is a SIGBUS later. Without them nothing is noted."""
    try:
        os.posix_fallocate(fd, 0, _SLOTS * ID_OCTETS)
    except OSError:
        return False
    return True
