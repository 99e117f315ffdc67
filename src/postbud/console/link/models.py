"""What the link keeps: records by sequence number, nodes, high-water marks, leases, commands, and where content lies.

Owns no customer's data: records are copies of what other apps own, made by `publish`. Invariant: the numbers of one database
are given in the order of commits, under the lock of the one row of `Sequence`.
"""

from django.db import models

from postbud.console.fields import IdField, InstantField


class Sequence(models.Model):
    """The one row (id 1). `value`: the last number given; `base`: where this database's life began (raised by a restore)."""

    id = models.SmallIntegerField(primary_key=True)
    value = models.BigIntegerField(default=0)
    base = models.BigIntegerField(default=0)


class LinkRecord(models.Model):
    """A directory record as it is now: JSON of `model.link.Record`; `gone` keeps the place of one that was removed."""

    kind = IdField(max_length=16)
    key = models.CharField(max_length=400)
    seq = models.BigIntegerField(unique=True)
    body = models.BinaryField()
    gone = models.BooleanField(default=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["kind", "key"], name="link_record_key"),)


class SetEntry(models.Model):
    """A hash of an address set; `present` false keeps the place of one that left. Hashes are 64 bits, signed as stored."""

    name = IdField(max_length=120)
    hash = models.BigIntegerField()
    seq = models.BigIntegerField()
    present = models.BooleanField(default=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["name", "hash"], name="link_set_entry"),)
        indexes = (models.Index(fields=["seq"], name="link_set_seq"),)


class Node(models.Model):
    """A machine with relay workers. Only the SHA-256 of its token is kept. `state`: the last `NodeState` that it posted."""

    id = IdField(primary_key=True)
    name = models.CharField(max_length=120, unique=True)
    token_hash = models.CharField(max_length=64, unique=True, null=True)
    created_at = InstantField()
    revoked_at = InstantField(null=True)
    last_seen_at = InstantField(null=True)
    state = models.JSONField(default=dict)


class SpoolMark(models.Model):
    """The high-water mark of a spool: all its events up to `seq` are in this database."""

    spool = models.BigIntegerField(primary_key=True)
    node = models.CharField(max_length=120)
    seq = models.BigIntegerField()
    at = InstantField()


class QuotaWindow(models.Model):
    """How much of an account's month is leased. `month` is such as 2026-11, in UTC; `granted`: what the last update gave."""

    account = IdField()
    month = IdField(max_length=16)
    used = models.BigIntegerField(default=0)
    granted = models.BigIntegerField(default=0)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "month"], name="link_quota_window"),)


class QuotaLease(models.Model):
    """A lease that was given; its id makes asking again harmless."""

    id = IdField(primary_key=True)
    account = IdField()
    month = IdField(max_length=16)
    node = models.CharField(max_length=120)
    spool = models.BigIntegerField()
    granted = models.BigIntegerField()
    at = InstantField(db_index=True)


class Command(models.Model):
    """A command to the workers: published until it expires; `answers` counts the workers that changed something."""

    id = IdField(primary_key=True)
    account = IdField()
    command = IdField(max_length=16)
    selector = models.JSONField()
    created_at = InstantField()
    expires_at = InstantField(db_index=True)
    answers = models.IntegerField(default=0)
    changed = models.IntegerField(default=0)
    answered_at = InstantField(null=True)
    made = IdField(default="")  # the message that a relay made of it
    said = models.CharField(max_length=300, default="")  # why a relay did nothing
    withdrawn = models.BooleanField(default=False)

    class Meta:
        indexes = (models.Index(fields=["account", "created_at"], name="link_command_account"),)


class Content(models.Model):
    """Content that was sent up: a sealed file of DATA/content, by its message."""

    pk = models.CompositePrimaryKey("account", "message")
    account = IdField()
    message = IdField()
    server = IdField()
    at = InstantField(db_index=True)
    octets = models.BigIntegerField()
