"""What goes into a spool and what comes out: batches, found rows, gauges, settings, and the ways it can say no.

Owns no storage. Times are seconds since 1970 unless the type says otherwise; sizes are octets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from postbud.model.content import Content
from postbud.model.delivery import Delivery, Message
from postbud.model.event import Event
from postbud.model.ids import DeliveryId, MessageId
from postbud.model.refusal import Refusal, Why

_KIB = 1024
_MIB = 1024 * _KIB


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a spool may hold and keep."""

    reserve_octets: int = 256 * _MIB  # accept is refused while less is free; deliveries go on
    reserve_inodes: int = 1_000
    settle_reserve_octets: int = 8 * _MIB  # a file given back to the disk when a result cannot be written
    content_in_memory_octets: int = 256 * _KIB  # a larger content is streamed to a file
    contents_in_memory_octets: int = 64 * _MIB  # all being received; beyond it they go to files early
    waiting_octets: int = 64 * _MIB  # waiting for the disk; beyond it accept is refused
    checkpoint_octets: int = 32 * _MIB
    check_seconds: float = 10.0  # the longest that the integrity check at open may take
    orphan_seconds: float = 3_600.0  # a file in `incoming/` or `content/` that nobody names goes after this
    crash_limit: int = 3  # a delivery under attempt at so many crashes in a row is quarantined
    event_days: float = 7.0
    event_rows: int = 5_000_000


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One accepted message with all its deliveries."""

    message: Message
    content: Content
    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request with a key of its own was answered: durable with its message, for a day. A later one takes its place."""

    key: bytes
    at: float
    data: bytes


@dataclass(slots=True)
class Batch:
    """What must become durable together: all of it or nothing.

    A delivery in `updates` that is QUEUED is rewritten; one in a final state is removed, and its message, content and
    signatures with the last. An update of a delivery that is no longer there does nothing.
    """

    messages: list[NewMessage] = field(default_factory=list)
    updates: list[Delivery] = field(default_factory=list)
    signatures: list[tuple[MessageId, bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    uses: list[tuple[str, int]] = field(default_factory=list)  # what is used of which lease (`spool.leases`)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A message's content and the signatures cached with it. A body in a file is named by its lasting path."""

    content: Content
    signatures: bytes | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries `find` gives; every field that is set must agree."""

    account: str | None = None
    server: str | None = None
    credential: str | None = None
    domain: str | None = None
    held: bool | None = None
    message: MessageId | None = None
    delivery: DeliveryId | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What one look for due mail gave: all there is of it that is due before `until`, which is where the next look goes on."""

    deliveries: list[tuple[Message, Delivery]]
    until: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a spool holds now. `octets` is what its files take on disk, `last_event` the number of its newest event."""

    queued: int = 0
    held: int = 0
    octets: int = 0
    last_event: int = 0
    quarantined: int = 0
    oldest_due_at: float | None = None


@dataclass(slots=True)
class Counters:
    """What a spool did since it was opened. Written by its threads, read by anybody."""

    commits: int = 0
    batches: int = 0
    commit_seconds: float = 0.0  # in COMMIT: nearly all of it the sync
    checkpoints: int = 0
    checkpoint_seconds: float = 0.0
    quarantined: int = 0
    refused_no_space: int = 0
    failed: int = 0


class SpoolLocked(Exception):  # noqa: N818 (names the state, as the rest of this family)
    """Another process has the folder open."""


class SpoolUnusable(Exception):  # noqa: N818 (names the state)
    """The folder cannot be opened: an old SQLite, an unknown newer schema, a folder that is no spool."""


class SpoolBroken(Refusal):
    """The disk failed under the spool: what was being written is unknown, and nothing more is accepted.

    The process must exit; recovery reads again what is really on disk (a retried fsync lies).
    """

    def __init__(self, private: str) -> None:
        super().__init__(Why.TEMPORARY, "Local error, try again later", private, close=True)


class Damaged(Exception):  # noqa: N818 (names the state)
    """A stored row or file does not match its checksum, or cannot be read; it is in quarantine now."""


class Unknown(LookupError):  # noqa: N818 (names the state)
    """No such message in this spool."""


def no_space(private: str) -> Refusal:
    """Make the refusal that says the disk is full."""
    return Refusal(Why.NO_SPACE, "Insufficient storage, try again later", private)
