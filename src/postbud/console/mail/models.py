"""The message log's tables, written by `ingest` in raw SQL, read by everybody else.

Keys begin with the account and go on with the message's id, which sorts by the time of acceptance: so account and time come
first everywhere, and a table can be cut by either. `between` turns instants into such a range. Invariant: a delivery's state
never leaves a final one. Times are microseconds since 1970 (`InstantField`); ids compare by octet.
"""

from datetime import datetime, timedelta

from django.db import models
from django.utils.translation import gettext_lazy as _

from postbud.console.fields import IdField, InstantField, to_micros
from postbud.model.ids import to_text

WHOLE = ""  # the account of roll-ups over all accounts
_SLACK = timedelta(minutes=5)  # how far an id's time may be from the message's: clocks step, counters run ahead
_OCTETS_BEHIND_TIME = 10


class DeliveryState(models.TextChoices):
    """Where a delivery stands, as the log shows it: a queued one is `queued`, `deferred` or `held`."""

    QUEUED = "queued", _("Queued")
    DEFERRED = "deferred", _("Deferred")
    HELD = "held", _("Held")
    DELIVERED = "delivered", _("Delivered")
    CAPTURED = "captured", _("Captured")
    BOUNCED = "bounced", _("Bounced")
    EXPIRED = "expired", _("Expired")
    CANCELLED = "cancelled", _("Cancelled")
    SUPPRESSED = "suppressed", _("Suppressed")


WAITING = frozenset({DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.HELD})
HOLDS = ("policy", "quota", "block", "pause", "key", "operator", "schedule", "quarantine")  # bit n of `held_by` is HOLDS[n]


def message_floor(at: datetime) -> str:
    """Give the smallest message id that a message accepted at `at` can have."""
    milliseconds = max(to_micros(at) // 1000, 0)
    return to_text("msg", milliseconds.to_bytes(6, "big") + bytes(_OCTETS_BEHIND_TIME))


class MessageQuerySet(models.QuerySet["MessageRow"]):
    """Messages of one account in a range of time."""

    def between(self, account: str, start: datetime, end: datetime) -> "MessageQuerySet":
        """Give those accepted from `start` to before `end`, by the key's order."""
        return self.filter(
            account=account,
            id__gte=message_floor(start - _SLACK),
            id__lt=message_floor(end + _SLACK),
            at__gte=start,
            at__lt=end,
        )


class DeliveryQuerySet(models.QuerySet["DeliveryRow"]):
    """Deliveries of one account in a range of time."""

    def between(self, account: str, start: datetime, end: datetime) -> "DeliveryQuerySet":
        """Give those whose message was accepted from `start` to before `end`, by the key's order."""
        return self.filter(
            account=account,
            message__gte=message_floor(start - _SLACK),
            message__lt=message_floor(end + _SLACK),
            message_at__gte=start,
            message_at__lt=end,
        )


class MessageRow(models.Model):
    """A message: envelope and what its header section said. `recipients` is their number."""

    pk = models.CompositePrimaryKey("account", "id")
    account = IdField()
    id = IdField()
    at = InstantField()
    server = IdField()
    credential = IdField()
    reverse_path = models.TextField()
    from_domain = models.TextField()
    signing_domain = models.TextField()
    subject = models.TextField()
    message_id = models.TextField()
    size_octets = models.BigIntegerField()
    recipients = models.IntegerField()
    client = models.TextField()
    tag = models.TextField()
    list = models.TextField()
    campaign = models.TextField()
    metadata = models.TextField()
    envid = models.TextField()
    findings = models.JSONField()

    objects = MessageQuerySet.as_manager()

    class Meta:
        db_table = "mail_message"


class DeliveryRow(models.Model):
    """A delivery (message × recipient) as it stands. `mailbox_hash`: under the account's set key, 64 bits, signed as stored.

    `held_by`: bits of `HOLDS`. `returned`: the action of the last report that came back for it. `subject` is the message's.
    """

    pk = models.CompositePrimaryKey("account", "message", "id")
    account = IdField()
    message = IdField()
    id = IdField()
    message_at = InstantField()
    server = IdField()
    credential = IdField()
    mailbox = models.TextField()
    mailbox_hash = models.BigIntegerField()
    recipient_domain = models.TextField()
    from_domain = models.TextField()
    subject = models.TextField()
    state = IdField(max_length=10, choices=DeliveryState.choices)
    held_by = models.SmallIntegerField(default=0, db_default=0)
    site = models.TextField()
    source = models.TextField()
    host = models.TextField()
    reply_code = models.SmallIntegerField()
    enhanced = models.TextField()
    reply = models.TextField()
    reason = models.TextField()
    classified = models.TextField()
    tls = models.TextField()
    attempts = models.IntegerField()
    possible_duplicate = models.BooleanField(default=False)
    returned = models.TextField(default="", db_default="")
    latency_ms = models.BigIntegerField()
    next_attempt_at = InstantField(null=True)
    updated_at = InstantField()

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        db_table = "mail_delivery"
        indexes = (
            models.Index(fields=["account", "mailbox_hash", "message", "id"], name="mail_delivery_mailbox"),
            models.Index(
                fields=["account", "state", "message", "id"],
                name="mail_delivery_state",
                condition=~models.Q(state=DeliveryState.DELIVERED),
            ),
        )

    @property
    def is_final(self) -> bool:
        """Whether nothing can become of it any more."""
        return self.state not in WAITING

    @property
    def holders(self) -> tuple[str, ...]:
        """Who holds it."""
        return tuple(name for bit, name in enumerate(HOLDS) if self.held_by & 1 << bit)


class EventRow(models.Model):
    """An event. `data`: JSON of the fields that neither the columns nor the message and delivery rows have."""

    pk = models.CompositePrimaryKey("account", "message", "id")
    account = IdField()
    message = IdField()
    id = IdField()
    at = InstantField()
    kind = IdField(max_length=16)
    delivery = IdField()
    data = models.BinaryField()

    class Meta:
        db_table = "mail_event"


class Rollup(models.Model):
    """Counts of 15 minutes, of one value of one dimension, of one account or (account `WHOLE`) of all.

    `dimension` "" with `key` "" is the total. `accepted` to `returned` count what happened in the bucket, in deliveries
    (`messages` and `octets`: messages); `of_…` count what became, by now, of the deliveries accepted in the bucket.
    """

    pk = models.CompositePrimaryKey("account", "dimension", "bucket_at", "key")
    account = IdField()
    dimension = IdField(max_length=12)
    bucket_at = InstantField()
    key = models.TextField()
    messages = models.BigIntegerField()
    octets = models.BigIntegerField()
    accepted = models.BigIntegerField()
    delivered = models.BigIntegerField()
    captured = models.BigIntegerField()
    deferred = models.BigIntegerField()
    bounced = models.BigIntegerField()
    expired = models.BigIntegerField()
    cancelled = models.BigIntegerField()
    suppressed = models.BigIntegerField()
    held = models.BigIntegerField()
    returned = models.BigIntegerField()
    of_delivered = models.BigIntegerField()
    of_captured = models.BigIntegerField()
    of_bounced = models.BigIntegerField()
    of_expired = models.BigIntegerField()
    of_cancelled = models.BigIntegerField()
    of_suppressed = models.BigIntegerField()

    class Meta:
        db_table = "mail_rollup"


class LatencyBin(models.Model):
    """How many deliveries of 15 minutes took how long: `bin` is log-scale, see `rollups.latency_bin`."""

    pk = models.CompositePrimaryKey("account", "dimension", "bucket_at", "key", "bin")
    account = IdField()
    dimension = IdField(max_length=12)
    bucket_at = InstantField()
    key = models.TextField()
    bin = models.SmallIntegerField()
    count = models.BigIntegerField()

    class Meta:
        db_table = "mail_latency"


class SavedView(models.Model):
    """A search of the log that a person of an account kept; `query` is the page's query string."""

    id = IdField(primary_key=True)
    account = IdField()
    person = IdField()
    name = models.CharField(max_length=120)
    query = models.TextField()
    shared = models.BooleanField(default=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "person", "name"], name="mail_saved_view"),)
