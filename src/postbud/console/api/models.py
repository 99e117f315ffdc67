"""Keys of the management API: an account's own, each with what it may do."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.models import Account
from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_key_id() -> str:
    """Make a key's id."""
    return new_id("key")


class ManagementKey(models.Model):
    """A key. `permissions` are values of `Permission`, of which its maker had to hold each; a revoked key opens nothing."""

    id = IdField(primary_key=True, default=new_key_id)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="management_keys")
    name = models.CharField(_("name"), max_length=120)
    permissions = models.JSONField(default=list)
    secret_hash = models.CharField(max_length=200)
    made_by = IdField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = (models.Index(fields=["account", "created_at"], name="api_key_account"),)

    def __str__(self) -> str:
        return self.name
