"""Plans: limits that an account's plan sets. Subscriptions and invoices come later; the operator edits plans by hand."""

from django.db import models

from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_plan_id() -> str:
    """Make a plan's id."""
    return new_id("pln")


class Plan(models.Model):
    """What an account may send, keep and make. `month_allowance`, `hourly_cap`: recipients; empty is no limit."""

    id = IdField(primary_key=True, default=new_plan_id)
    name = models.CharField(max_length=120, unique=True)
    month_allowance = models.PositiveBigIntegerField(null=True, blank=True)
    hourly_cap = models.PositiveBigIntegerField(null=True, blank=True)
    log_days = models.PositiveIntegerField(default=30)
    content_days = models.PositiveIntegerField(default=7)
    servers_limit = models.PositiveIntegerField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
