"""Who runs which loop."""

from django.db import models

from postbud.console.fields import IdField, InstantField


class JobLease(models.Model):
    """A loop's lease: `owner` runs it until `until`, unless it takes the lease again before."""

    name = IdField(primary_key=True)
    owner = models.CharField(max_length=120)
    until = InstantField()
