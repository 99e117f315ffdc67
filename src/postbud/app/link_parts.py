"""What a worker has when there is a console: its client, the replica, the shipper, leases, commands, and where content goes.

Built once for each worker by `ConsoleParts.open`, from the settings alone: `relay.console` (which the supervisor sets for its
workers) with its token, DATA/replica, DATA/keys/installation.key. A worker without a console has none of it.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from postbud.app.config import Settings
from postbud.delivery.commands import Changed, Commands
from postbud.delivery.holds import Holds
from postbud.delivery.keeping import Keeping
from postbud.link.leases import MonthLeases
from postbud.link.replica import Directory, Replica
from postbud.link.replicated import ReplicaFollower, ReplicaSource
from postbud.link.ship_http import HttpShipper, HttpShipSettings
from postbud.model.lease import StoredLease
from postbud.model.link import CommandRecord
from postbud.model.settings import SettingsError
from postbud.net.http import LinkAddress, LinkClient
from postbud.spool import leases as spool_leases
from postbud.spool.marks import Marks
from postbud.spool.sqlite import Spool
from postbud.submission.accept import SubmissionGate
from postbud.submission.resend import Resending
from postbud.telemetry.logs import Log

_LOOK_SECONDS = 0.1


def link_address(settings: Settings) -> LinkAddress:
    """Give where the console's link is: `relay.console`, else this machine's own socket.

    Raises:
        SettingsError: The token's file cannot be read.
    """
    relay = settings.config.relay
    url = relay.console or f"unix:{settings.data / 'run' / 'link.sock'}"
    token = ""
    if relay.console_token_file:
        try:
            token = settings.path(relay.console_token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"relay.console_token_file: {error}") from error
    return LinkAddress(url, token, settings.path(relay.console_ca_file) if relay.console_ca_file else None)


@dataclass
class ConsoleParts:
    """A worker's end of the link, before the rest is wired."""

    settings: Settings
    index: int
    client: LinkClient
    source: ReplicaSource
    first_commands: list[CommandRecord]
    stored_leases: list[StoredLease]

    @classmethod
    async def open(cls, settings: Settings, index: int, spool: Spool, stop: asyncio.Event, log: Log) -> "ConsoleParts | None":
        """Read the directory, waiting for the very first one; None when told to stop meanwhile."""
        source = ReplicaSource(settings.data / "replica", settings.data / "keys" / "installation.key")
        waited = False
        while True:
            commands = await asyncio.to_thread(source.read)
            await asyncio.to_thread(source.read_sets)
            if source.known:
                break
            if not waited:
                log.info("waiting_for_directory", folder=str(settings.data / "replica"))
                waited = True
            await asyncio.sleep(_LOOK_SECONDS)
            if stop.is_set():
                source.close()
                return None
        stored = await spool.run(spool_leases.stored)
        return cls(settings, index, LinkClient(link_address(settings)), source, commands, stored)

    @property
    def directory(self) -> Directory:
        """The directory as it was read."""
        return self.source.directory

    @property
    def node(self) -> str:
        """This machine's name at the console."""
        return self.settings.config.relay.node or self.settings.hostname

    def shipper(self, spool: Spool, clock: Callable[[], float], dice: random.Random, log: Log) -> HttpShipper:
        """Give the shipper of events."""

        async def last_seq() -> int:
            return (await spool.gauges()).last_event

        return HttpShipper(
            HttpShipSettings(self.node, spool.spool_id, self.settings.config.spool.event_days * 86400),
            self.client, spool.events_after, spool.prune_events, last_seq, clock, dice.random,
            lambda before, after: log.warning("events_again", shipped=before, console_has=after),
        )  # fmt: skip

    def months(self, spool: Spool, clock: Callable[[], float], dice: random.Random, log: Log) -> MonthLeases:
        """Give the leases of allowances."""

        async def note(account: str, window: str, ends_at: int, granted: int) -> None:
            await spool.run(partial(spool_leases.note, account=account, window=window, ends_at=ends_at, granted=granted))

        return MonthLeases(
            self.client, self.node, spool.spool_id, note, clock, dice.random, self.stored_leases,
            lambda why: log.warning("leases_wait", why=why),
        )  # fmt: skip

    def keeping(self, replica: Replica, log: Log) -> Keeping:
        """Give what puts content away for servers that keep it."""
        return Keeping(
            self.settings.data / "keep", self.index, self.settings.workers, replica, self.client,
            lambda why: log.warning("content_waits", why=why),
        )  # fmt: skip

    def commands(
        self, spool: Spool, holds: Holds, replica: Replica, gate: SubmissionGate, clock: Callable[[], float],
        on_changed: Callable[[], None], log: Log,
    ) -> Commands:  # fmt: skip
        """Give what carries out commands."""
        resending = Resending(gate, spool, self.client, clock)

        async def resend(command: CommandRecord) -> Changed | None:
            resent = await resending.carry_out(command)
            return Changed(1 if resent.message else 0, resent.message, resent.reason) if resent is not None else None

        return Commands(Marks(spool), holds, replica, spool.ids.event, clock, on_changed, resend, log)

    def follower(self, replica: Replica, commands: Commands, on_problem: Callable[[str], None]) -> ReplicaFollower:
        """Give what follows the replica on disk."""
        return ReplicaFollower(self.source, replica, on_problem, commands.put, self.first_commands)
