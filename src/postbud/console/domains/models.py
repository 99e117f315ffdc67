"""Sending domains of accounts and the DKIM keys that their mail is signed with.

Knows what DNS last said, not how it is asked. Invariant: private keys are sealed under `<account>/<domain>/<selector>`
(`model.sealed`), never in the clear.
"""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.models import Account
from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_domain_id() -> str:
    """Make a domain's id."""
    return new_id("dom")


class DomainStatus(models.TextChoices):
    """Whether mail may come from a domain. Lost: its proof is gone."""

    PENDING = "pending", _("Pending")
    VERIFIED = "verified", _("Verified")
    LOST = "lost", _("Lost")


class Domain(models.Model):
    """A domain of an account; several accounts may have one of the same name."""

    id = IdField(primary_key=True, default=new_domain_id)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="domains")
    name = models.CharField(_("domain"), max_length=253)
    status = models.CharField(max_length=10, choices=DomainStatus.choices, default=DomainStatus.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    verified_at = models.DateTimeField(null=True, blank=True)
    by_word = models.BooleanField(default=False)  # an operator's word is the proof, and DNS takes nothing away
    checked_at = models.DateTimeField(null=True, blank=True)
    next_check_at = models.DateTimeField(default=timezone.now, db_index=True)
    failing_since = models.DateTimeField(null=True, blank=True)  # when its proof was first found gone
    warned_days = models.SmallIntegerField(default=0)  # the last of days 1, 3 and 6 on which its owners were warned
    sight = models.JSONField(default=dict)  # `looking.Sight` of the last check

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "name"], name="domains_domain_name"),)

    def __str__(self) -> str:
        return self.name


class KeyStatus(models.TextChoices):
    """Whether mail is signed with a key. Pending: once its record is seen. Retired: its record stays for what is under way."""

    PENDING = "pending", _("Pending")
    ACTIVE = "active", _("Active")
    RETIRED = "retired", _("Retired")


class DkimKey(models.Model):
    """One key of a domain. `public_record`: the value of its TXT record at `<selector>._domainkey.<domain>`."""

    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, related_name="keys")
    selector = models.CharField(max_length=63)
    algorithm = models.CharField(max_length=16)
    sealed = models.BinaryField()
    public_record = models.TextField()
    status = models.CharField(max_length=10, choices=KeyStatus.choices, default=KeyStatus.ACTIVE)
    created_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["domain", "selector"], name="domains_key_selector"),)

    def __str__(self) -> str:
        return self.selector
