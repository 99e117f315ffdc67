"""What a worker has that stands alone: the directory file with its last good copy, and events as files of JSON lines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from postbud.app.config import Settings
from postbud.delivery.signing import check_key
from postbud.link.file import KEPT_NAME, FileFollower, Seen, fingerprint, load_or_last_good
from postbud.link.replica import Directory, Replica
from postbud.link.ship import FileShipper, ShipSettings
from postbud.spool.sqlite import Spool


@dataclass
class FileParts:
    """A directory file that was read, before the rest is wired."""

    settings: Settings
    index: int
    path: Path
    kept: Path
    seen: Seen
    directory: Directory
    problem: str | None

    @classmethod
    def open(cls, settings: Settings, path: Path, index: int) -> "FileParts":
        """Read the directory, or the last good copy of it.

        Raises:
            SettingsError: Neither can be had.
        """
        kept = settings.data / "replica" / KEPT_NAME.format(index)
        seen = fingerprint(path)
        directory, problem = load_or_last_good(path, kept, check_key)
        return cls(settings, index, path, kept, seen, directory, problem)

    def follower(self, replica: Replica, on_problem: Callable[[str], None]) -> FileFollower:
        """Give what follows the file."""
        return FileFollower(self.path, self.kept, replica, check_key, on_problem, seen=self.seen, problem=self.problem)

    def shipper(self, spool: Spool, clock: Callable[[], float]) -> FileShipper:
        """Give the shipper of events."""
        telemetry = self.settings.config.telemetry
        return FileShipper(
            ShipSettings(
                folder=self.settings.data / "events",
                name=f"worker-{self.index}",
                spool_id=spool.spool_id,
                file_octets=telemetry.event_file_octets,
                files=telemetry.event_files,
                keep_seconds=self.settings.config.spool.event_days * 86400,
            ),
            spool.events_after, spool.prune_events, clock,
        )  # fmt: skip
