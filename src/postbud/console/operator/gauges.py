"""What relays last said of themselves, read for pages: nodes, their workers, and lanes with why they wait. Reads only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from postbud.console.link.models import Node
from postbud.model.link import STATE_SECONDS, NodeState

SILENT_AFTER = timedelta(seconds=6 * STATE_SECONDS)


@dataclass(frozen=True, slots=True)
class Stopped:
    """An account that a site wants to hear nothing of for a while."""

    account: str
    until: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane (egress source, site) of one worker."""

    node: str
    worker: int
    source: str
    site: str
    ready: int
    connections: int
    connections_allowed: int
    messages_per_second: float | None
    paused_until: datetime | None
    dead_until: datetime | None
    why: str
    stopped: tuple[Stopped, ...]

    @property
    def state(self) -> str:
        """A word for it: `dead`, `paused`, `slowed`, or `flowing`."""
        if self.dead_until is not None:
            return "dead"
        if self.paused_until is not None:
            return "paused"
        return "slowed" if self.messages_per_second is not None else "flowing"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with its state as it was last told; None where it never told any."""

    row: Node
    state: NodeState | None
    silent: bool

    @property
    def status(self) -> str:
        """A word for it."""
        if self.row.revoked_at is not None:
            return "revoked"
        if self.state is None:
            return "never_seen"
        return "silent" if self.silent else "active"

    @property
    def numbers(self) -> dict[str, float]:
        """The workers' numbers together: added up, the largest of waits and lags."""
        whole: dict[str, float] = {}
        for worker in self.state.workers if self.state is not None else ():
            for name, value in worker.numbers.items():
                largest = name.endswith("_seconds") and "commit" not in name
                whole[name] = max(whole.get(name, 0.0), value) if largest else whole.get(name, 0.0) + value
        return whole

    @property
    def problems(self) -> list[str]:
        """What is wrong, as names of `operator.texts`."""
        if self.state is None or self.silent:
            return []
        numbers = self.numbers
        found = []
        if any(worker.numbers.get("postbud_spool_has_space") == 0 for worker in self.state.workers):
            found.append("no_space")
        for name, problem in (
            ("postbud_directory_problem", "directory"),
            ("postbud_spool_quarantined", "quarantined"),
            ("postbud_log_lines_dropped", "log_dropped"),
        ):
            if numbers.get(name, 0) > 0:
                found.append(problem)
        if numbers.get("postbud_loop_lag_seconds", 0) > 1:
            found.append("lag")
        return found

    def lanes(self) -> list[LaneView]:
        """Give its lanes, the fullest first."""
        if self.state is None or self.silent:
            return []
        rows = [_lane(self.row.name, worker.index, row) for worker in self.state.workers for row in worker.lanes]
        return sorted(rows, key=lambda lane: (-lane.ready, lane.site, lane.source))


def nodes(now: datetime) -> list[NodeView]:
    """Give every node by name; this machine's own has no token."""
    return [node_view(row, now) for row in Node.objects.order_by("name")]


def node_view(row: Node, now: datetime) -> NodeView:
    """Give a node with its state."""
    state = None
    if row.state:
        try:
            state = msgspec.convert(row.state, NodeState)
        except msgspec.ValidationError:  # a relay of another version
            state = None
    silent = row.last_seen_at is None or now - row.last_seen_at > SILENT_AFTER
    return NodeView(row, state, silent)


def lanes_of(views: Iterable[NodeView]) -> list[LaneView]:
    """Give the lanes of several nodes, the fullest first."""
    rows = [lane for view in views for lane in view.lanes()]
    return sorted(rows, key=lambda lane: (-lane.ready, lane.site, lane.source, lane.node, lane.worker))


def _lane(node: str, worker: int, row: dict[str, Any]) -> LaneView:
    stopped = row.get("stopped_accounts") or {}
    rate = row.get("messages_per_second")
    return LaneView(
        node=node,
        worker=worker,
        source=str(row.get("source") or ""),
        site=str(row.get("site") or ""),
        ready=int(row.get("ready") or 0),
        connections=int(row.get("connections") or 0),
        connections_allowed=int(row.get("connections_allowed") or 0),
        messages_per_second=float(rate) if rate is not None else None,
        paused_until=_instant(row.get("paused_until")),
        dead_until=_instant(row.get("dead_until")),
        why=str(row.get("why") or ""),
        stopped=tuple(
            Stopped(str(account), _instant(one.get("until")), str(one.get("why") or "")) for account, one in stopped.items()
        ),
    )


def _instant(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(float(seconds), UTC) if isinstance(seconds, int | float) and seconds > 0 else None
