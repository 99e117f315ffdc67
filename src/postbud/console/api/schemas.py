"""What the management API takes and gives. Names are those of the pages and of the sending API; times are ISO 8601, UTC."""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from ninja import Schema
from pydantic import ConfigDict, Field, StringConstraints

T = TypeVar("T")
Name = Annotated[str, StringConstraints(min_length=1, max_length=120)]
Cap = Annotated[int, Field(ge=1, le=10**9)]
_Text = Annotated[str, StringConstraints(max_length=320)]


class In(Schema):
    """A request's body: a field that is not known is refused, so that no slip is silently lost."""

    model_config = ConfigDict(extra="forbid")


class Page(Schema, Generic[T]):
    """A page of a list. `next_cursor`: what `cursor` is in the request for the next page; null on the last."""

    data: list[T]
    next_cursor: str | None


class FieldErrorOut(Schema):
    """What is wrong with one field."""

    field: str
    detail: str


class Problem(Schema):
    """A no (RFC 9457). `code` is for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldErrorOut] = Field(default_factory=list)


class AccountOut(Schema):
    """The account that the key is of."""

    id: str
    name: str
    status: str
    language: str
    time_zone: str
    plan: str
    hourly_cap: int | None
    month_allowance: int | None
    month_used: int
    created_at: datetime


class AccountChange(In):
    """What can be changed of an account; what is left out stays."""

    name: Name | None = None
    language: Literal["", "en", "da"] | None = None
    time_zone: Annotated[str, StringConstraints(max_length=64)] | None = None


class ServerOut(Schema):
    """A server. `hourly_cap`: recipients; null is the account's."""

    id: str
    name: str
    kind: Literal["transactional", "marketing", "sandbox"]
    status: str
    hourly_cap: int | None
    keep_content: bool
    created_at: datetime


class ServerIn(In):
    """A new server."""

    name: Name
    kind: Literal["transactional", "marketing", "sandbox"]


class ServerChange(In):
    """What can be changed of a server; what is left out stays, `hourly_cap: null` takes the limit away."""

    name: Name | None = None
    hourly_cap: Cap | None = None
    keep_content: bool | None = None


class CredentialOut(Schema):
    """A device's or program's credential. `networks` of one that is known by its address."""

    id: str
    server: str
    kind: Literal["smtp", "network", "api"]
    name: str
    status: str
    username: str | None
    networks: list[str]
    allow_from: list[str]
    hourly_cap: int | None
    normalise_line_ends: bool
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_address: str


class SecretOut(CredentialOut):
    """A credential with its secret: the only time that it is shown; null for a network."""

    secret: str | None


class CredentialIn(In):
    """A new credential."""

    kind: Literal["smtp", "network", "api"]
    name: Name
    networks: Annotated[list[_Text], Field(max_length=16, default_factory=list)]
    allow_from: Annotated[list[_Text], Field(max_length=100, default_factory=list)]
    hourly_cap: Cap | None = None
    normalise_line_ends: bool = False


class CredentialChange(In):
    """What can be changed of a credential; what is left out stays."""

    name: Name | None = None
    networks: Annotated[list[_Text], Field(max_length=16)] | None = None
    allow_from: Annotated[list[_Text], Field(max_length=100)] | None = None
    hourly_cap: Cap | None = None
    normalise_line_ends: bool | None = None


class RotateIn(In):
    """How long the former secret stays good."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 86400


class RecordOut(Schema):
    """A DNS record to publish, and what was seen of it last."""

    purpose: Literal["proof", "dkim", "return_path", "dmarc"]
    name: str
    type: str
    value: str
    needed: bool
    state: str


class DomainOut(Schema):
    """A domain. `failing_since`: its proof is gone; after seven days `status` is `lost`."""

    id: str
    name: str
    status: Literal["pending", "verified", "lost"]
    created_at: datetime
    verified_at: datetime | None
    checked_at: datetime | None
    failing_since: datetime | None
    dmarc_policy: str
    records: list[RecordOut]


class DomainIn(In):
    """A new domain."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]


class DeliveryOut(Schema):
    """One delivery in the log: a message to one recipient."""

    id: str
    message: str
    accepted_at: datetime
    mailbox: str
    state: str
    subject: str
    server: str
    credential: str
    from_domain: str
    site: str
    reply_code: int | None
    enhanced: str
    reply: str
    reason: str
    classified: str
    attempts: int
    latency_ms: int
    next_attempt_at: datetime | None
    updated_at: datetime


class CommandOut(Schema):
    """A command that was told to the relays: carried out within seconds, kept for a day."""

    id: str
    command: str
    created_at: datetime
    expires_at: datetime


class CountsOut(Schema):
    """Deliveries: what became, by now, of those accepted in the time; `deferrals`, `holds`, `returned`: what happened in it."""

    accepted: int
    delivered: int
    captured: int
    bounced: int
    expired: int
    cancelled: int
    suppressed: int
    waiting: int
    deferrals: int
    holds: int
    returned: int
    messages: int
    octets: int


class SlotOut(CountsOut):
    """The counts of one slot of time."""

    start: datetime


class ValueOut(CountsOut):
    """The counts of one value of a dimension."""

    key: str


class LatencyOut(Schema):
    """Milliseconds from acceptance to delivery; null of no deliveries."""

    p50: float | None
    p95: float | None
    p99: float | None


class StatisticsOut(Schema):
    """Figures of a time, which begins and ends at quarters of an hour."""

    start: datetime
    end: datetime
    total: CountsOut
    before: CountsOut
    latency_ms: LatencyOut
    slots: list[SlotOut]


class ValuesOut(Schema):
    """Figures by the values of a dimension, the most active first, a hundred at most."""

    start: datetime
    end: datetime
    data: list[ValueOut]


class WebhookOut(Schema):
    """A URL that is told of events. `kinds` empty: of all."""

    id: str
    url: str
    description: str
    kinds: list[str]
    server: str | None
    status: str
    created_at: datetime
    last_success_at: datetime | None
    last_failure_at: datetime | None


class WebhookSecretOut(WebhookOut):
    """A webhook with its secret: the only time that it is shown."""

    secret: str


class WebhookIn(In):
    """A new webhook, or all that one is to be."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    description: Annotated[str, StringConstraints(max_length=200)] = ""
    kinds: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=64, default_factory=list)]
    server: Annotated[str, StringConstraints(max_length=64)] | None = None
