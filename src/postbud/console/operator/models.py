"""What the operator tells everybody."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_announcement_id() -> str:
    """Make an announcement's id."""
    return new_id("ann")


class Weight(models.TextChoices):
    """How much it matters."""

    INFO = "info", _("For information")
    WARN = "warn", _("Needs attention")


class Announcement(models.Model):
    """A text that stands on every page of people who are signed in, from one instant to another."""

    id = IdField(primary_key=True, default=new_announcement_id)
    text = models.CharField(_("text"), max_length=500)
    weight = models.CharField(_("weight"), max_length=8, choices=Weight.choices, default=Weight.INFO)
    starts_at = models.DateTimeField(_("from"), default=timezone.now)
    ends_at = models.DateTimeField(_("until"))

    class Meta:
        indexes = (models.Index(fields=["ends_at"], name="operator_announcement_ends"),)

    def __str__(self) -> str:
        return self.text
