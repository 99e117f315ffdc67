"""A message in the spool and its deliveries (message × recipient), with the table of delivery states.

The state diagram in `docs/flow.md` is drawn from `TRANSITIONS`.
"""

from datetime import datetime
from enum import Enum

import msgspec

from postbud.model.envelope import DEFAULT_NOTIFY, Notify
from postbud.model.ids import AccountId, CredentialId, DeliveryId, MessageId, ServerId


class State(Enum):
    """Where a delivery stands. Everything but QUEUED is final (P3)."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


FINAL = frozenset(State) - {State.QUEUED}
TRANSITIONS: dict[State, frozenset[State]] = {state: frozenset() for state in FINAL} | {State.QUEUED: frozenset(State)}


class Hold(Enum):
    """Who holds a delivery; it leaves only when nobody does."""

    POLICY = "policy"
    QUOTA = "quota"
    BLOCK = "block"
    PAUSE = "pause"
    KEY = "key"
    OPERATOR = "operator"
    SCHEDULE = "schedule"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the spool keeps of a message besides its content. Mailboxes are text here, parsed before."""

    id: MessageId
    account: AccountId
    server: ServerId
    credential: CredentialId
    reverse_path: str  # as submitted; "" is the null reverse-path; where our DSNs go
    signing_domain: str | None  # d= of the signature: the verified domain that covers the From; None for our own DSNs
    from_domain: str
    received_at: datetime
    size_octets: int
    eight_bit: bool = False  # content holds octets above 127
    smtputf8: bool = False  # header section or envelope needs SMTPUTF8
    require_tls: bool = False  # REQUIRETLS, RFC 8689
    ret_full: bool | None = None  # RET=FULL, RET=HDRS; None: not said
    envid: str | None = None
    pool: str | None = None
    marketing: bool = False
    tag: str | None = None
    campaign: str | None = None
    list: str | None = None
    metadata: str | None = None
    subject: str = ""
    message_id: str = ""  # the Message-ID field's text
    is_dsn: bool = False  # one of our own DSNs: never answered by another
    client: str = ""  # address of the client that submitted it
    sandbox: bool = False  # captured, never delivered; answered by no DSN


class Delivery(msgspec.Struct, omit_defaults=True):
    """One recipient of a message. Mutable: the scheduler and `record` move it; the spool keeps it."""

    id: DeliveryId
    message_id: MessageId
    mailbox: str
    domain: str  # recipient domain, A-labels
    due_at: float  # seconds since 1970
    expires_at: float
    created_at: float
    state: State = State.QUEUED
    attempts: int = 0
    held_by: frozenset[Hold] = frozenset()
    held_since: dict[Hold, float] = {}
    notify: Notify = DEFAULT_NOTIFY
    orcpt: str | None = None
    reverse_path: str | None = None  # token form that goes on the wire; None: the message's own
    substitutions: dict[str, str] = {}
    delay_notified: bool = False
    last_reply: str = ""
    last_host: str = ""  # who said it; empty when nobody did
    last_attempt_at: float = 0.0
    unknown_after_dot: bool = False  # a final dot was sent and its answer never came: a duplicate is possible (P2)
    route: str | None = None
