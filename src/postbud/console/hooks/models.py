"""Endpoints, what is to be told to each, and how that went.

Owns an outbox: rows are written in the transaction of the event that they tell of, so nothing that happened is forgotten and
nothing that did not is told. Invariant: of one message, an endpoint is told in the order of its events.
"""

from django.db import models

from postbud.console.fields import IdField, InstantField


class EndpointStatus(models.TextChoices):
    """Whether an endpoint is called. FAILING: paused by us after days without a success; its owner resumes it."""

    ACTIVE = "active"
    PAUSED = "paused"
    FAILING = "failing"


class Endpoint(models.Model):
    """A URL of an account that is told of events. `kinds` empty: all. Secrets are sealed under `<id>` and `<id>/former`."""

    id = IdField(primary_key=True)
    account = IdField(db_index=True)
    server = IdField(blank=True, default="")
    url = models.CharField(max_length=2048)
    description = models.CharField(max_length=200, blank=True)
    kinds = models.JSONField(default=list)
    sealed_secret = models.BinaryField()
    sealed_former = models.BinaryField(null=True)
    former_until = InstantField(null=True)
    status = models.CharField(max_length=10, choices=EndpointStatus.choices, default=EndpointStatus.ACTIVE)
    created_at = InstantField()
    failing_since = InstantField(null=True)
    last_success_at = InstantField(null=True)
    last_failure_at = InstantField(null=True)


class HookState(models.TextChoices):
    """What became of one post. EXPIRED: every attempt failed. DROPPED: it waited beyond the outbox's age or size."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    DROPPED = "dropped"


class Hook(models.Model):
    """One thing to tell one endpoint: the outbox, and the log of it. `body` is what is posted, octet by octet."""

    account = IdField()
    endpoint = IdField()
    event = IdField()
    message = IdField(blank=True, default="")
    kind = models.CharField(max_length=40)
    body = models.BinaryField()
    created_at = InstantField()
    state = models.CharField(max_length=10, choices=HookState.choices, default=HookState.WAITING)
    attempts = models.IntegerField(default=0)
    next_at = InstantField(null=True)
    status = models.IntegerField(null=True)
    error = models.CharField(max_length=300, blank=True, default="")
    finished_at = InstantField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["endpoint", "event"], name="hooks_once"),)
        indexes = (
            models.Index(
                fields=["endpoint", "message", "id"], name="hooks_waiting", condition=models.Q(state=HookState.WAITING)
            ),
            models.Index(fields=["endpoint", "next_at"], name="hooks_due", condition=models.Q(state=HookState.WAITING)),
            models.Index(fields=["account", "endpoint", "created_at"], name="hooks_log"),
        )


class Attempt(models.Model):
    """One post of a hook. `answer` is the beginning of what came back, as text; it is a stranger's: escape it."""

    account = IdField()
    hook = models.BigIntegerField()
    at = InstantField()
    status = models.IntegerField(null=True)
    milliseconds = models.IntegerField()
    error = models.CharField(max_length=300, blank=True, default="")
    answer = models.CharField(max_length=1000, blank=True, default="")

    class Meta:
        indexes = (models.Index(fields=["account", "hook", "at"], name="hooks_attempts"),)
