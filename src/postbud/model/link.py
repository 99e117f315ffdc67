"""The link's records: what relay and console say to each other, shared by both ends (design §1, eight flows).

All are JSON over HTTP/1.1. Both ends ignore fields that they do not know, so that either may be upgraded first.
Sealed values are AES-256-GCM under the installation key with the record's id as additional data (`model.sealed` says how).
"""

from datetime import datetime
from enum import Enum

import msgspec

from postbud.model.account import Kind, Status
from postbud.model.event import Event

PAGE_RECORDS = 1000  # most changes of one directory answer
WAIT_SECONDS = 30  # the longest that a directory request waits for a change
STATE_SECONDS = 5  # how often a node posts its state
BATCH_EVENTS = 4_000


class SealedKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """One DKIM key of a domain: PKCS#8 PEM, sealed under `<account>/<domain>/<selector>`. None: lost; its domain is held."""

    selector: str
    sealed: bytes | None


class AccountRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="account", tag_field="kind"):
    """An account. `hourly_cap`: recipients an hour; `month_allowance`: recipients a month, by leases; None is no limit."""

    id: str
    name: str
    status: Status = Status.ACTIVE
    block_reference: str | None = None
    hourly_cap: int | None = None
    month_allowance: int | None = None


class ServerRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="server", tag_field="kind"):
    """A server of an account. `purpose` is its kind. `keep_content`: content goes up after delivery (flow 7)."""

    id: str
    account: str
    purpose: Kind
    status: Status = Status.ACTIVE
    pool: str | None = None
    hourly_cap: int | None = None
    keep_content: bool = False


class CredentialRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="credential", tag_field="kind"):
    """A credential of a server: a username with a secret, networks, or (`api`) a key of the sending API.

    `former_hash` is the secret before a rotation, good until `former_until`.
    """

    id: str
    server: str
    username: str | None = None
    secret_hash: str | None = None
    former_hash: str | None = None
    former_until: datetime | None = None
    networks: tuple[str, ...] = ()
    api: bool = False
    status: Status = Status.ACTIVE
    allow_from: tuple[str, ...] = ()
    hourly_cap: int | None = None
    normalise_line_ends: bool = False
    allow_null_reverse_path: bool = False


class DomainRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="domain", tag_field="kind"):
    """A verified domain of an account; `id` is `<account>/<name>`. `return_path` leads to our bounce host; empty: none does."""

    id: str
    account: str
    name: str
    keys: tuple[SealedKey, ...] = ()
    return_path: str = ""


class SecretRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="secret", tag_field="kind"):
    """A key that relays need: `id` is `pepper/<n>`, `token/<n>`, `unsubscribe/<n>`, `set/platform` or `set/<account>`.

    Sealed under its id. A pepper's `<n>` is the key id in `hmac$<n>$…`.
    """

    id: str
    sealed: bytes


class PolicyRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="policy", tag_field="kind"):
    """How a rule acts: off, shadow or enforce; `id` is the rule's."""

    id: str
    mode: str


class CommandKind(Enum):
    """What a command does to queued mail."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    RESEND = "resend"
    ERASE = "erase"


class Selector(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which deliveries a command means; every field that is set must agree, and one must be set."""

    account: str | None = None
    server: str | None = None
    credential: str | None = None
    domain: str | None = None
    message: str | None = None
    delivery: str | None = None
    mailbox_hash: int | None = None  # of the account's set key; 64 bits, unsigned


class CommandRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="command", tag_field="kind"):
    """A command: idempotent, answered by an event of kind `commanded` from every worker that it changed something at."""

    id: str
    command: CommandKind
    selector: Selector
    expires_at: datetime


class VerdictRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="template", tag_field="kind"):
    """What the policy says of a template, by its fingerprint (flow 8; carries nothing yet)."""

    id: str
    verdict: str


class Gone(msgspec.Struct, frozen=True, omit_defaults=True, tag="gone", tag_field="kind"):
    """A record that was removed: `what` is its kind."""

    what: str
    id: str


Record = (
    AccountRecord
    | ServerRecord
    | CredentialRecord
    | DomainRecord
    | SecretRecord
    | PolicyRecord
    | CommandRecord
    | VerdictRecord
    | Gone
)


class Change(msgspec.Struct, frozen=True):
    """One record as it is since a sequence number."""

    seq: int
    record: Record


class DirectoryPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `GET /link/directory?since=SEQ&wait=SECONDS`: what changed after SEQ, each record once, in the order of SEQ.

    `since=0` gives the whole directory, without what is gone. `more`: ask again at once with `seq`. A `since` beyond the
    console's own (its database was restored) is answered with `restart`: the follower begins again at 0.
    """

    seq: int
    changes: tuple[Change, ...] = ()
    more: bool = False
    restart: bool = False
    monitor_ok_at: datetime | None = None


class SetPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `GET /link/sets/{name}?after=HASH`: a sorted page of a set; `hashes` are 8 octets each, big endian, joined.

    `seq` is the set's state that the page belongs to at least; `next` is None on the last page.
    """

    name: str
    seq: int
    hashes: bytes
    next: int | None = None


class SetChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A hash that came into a set or left it."""

    seq: int
    name: str
    hash: int
    present: bool


class SetChanges(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `GET /link/sets?since=SEQ&wait=SECONDS`: changes in order, and the names of all sets."""

    seq: int
    names: tuple[str, ...] = ()
    changes: tuple[SetChange, ...] = ()
    more: bool = False
    restart: bool = False


class NumberedEvent(Event, frozen=True, omit_defaults=True, kw_only=True):
    """An event with its number in its spool."""

    seq: int


class EventBatch(msgspec.Struct, frozen=True):
    """Body of `POST /link/events`: events of one spool, in the order of their numbers (numbers may have gaps)."""

    node: str
    spool: int
    events: tuple[NumberedEvent, ...]


class HighWater(msgspec.Struct, frozen=True):
    """Answer of `POST /link/events` and `GET /link/events?spool=N`: all up to `seq` is in the console's database.

    Lower than what the relay sent before: the console was restored; the relay sends again from there, as far as it kept.
    """

    seq: int


class LeaseRequest(msgspec.Struct, frozen=True):
    """Body of `POST /link/quota`: a worker wants so many recipients of an account's month. `id` makes it idempotent."""

    id: str
    node: str
    spool: int
    account: str
    wanted: int


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer: so many granted (0: used up) until the window ends; `used` of `allowance` are leased by now."""

    granted: int
    window: str  # such as 2026-11
    ends_at: datetime
    used: int = 0
    allowance: int | None = None


class WorkerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Gauges of one worker: metric name → value, and its lanes."""

    index: int
    spool: int = 0
    numbers: dict[str, float] = {}
    lanes: list[dict[str, object]] = []


class NodeState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `POST /link/state`, every 5 s: what a node is and does."""

    node: str
    at: datetime
    version: str
    directory_seq: int = 0
    workers: list[WorkerState] = []
    listeners: list[dict[str, object]] = []
    sources: list[dict[str, object]] = []  # egress sources: id, address, helo, pool
    health: list[dict[str, str]] = []  # what `postbud doctor` found there: name, state, said, fix
    health_at: datetime | None = None
