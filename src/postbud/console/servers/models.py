"""Virtual SMTP servers of accounts, and the credentials of devices and programs that send through them.

Does not know mail. Invariant: a secret is never here, only its keyed hash; `services` writes, and tells relays in the same
transaction.
"""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.models import Account
from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_server_id() -> str:
    """Make a server's id."""
    return new_id("srv")


def new_credential_id() -> str:
    """Make a credential's id."""
    return new_id("crd")


class ServerKind(models.TextChoices):
    """What a server is for. A sandbox captures and never delivers."""

    TRANSACTIONAL = "transactional", _("Transactional")
    MARKETING = "marketing", _("Marketing")
    SANDBOX = "sandbox", _("Sandbox")


class ServerStatus(models.TextChoices):
    """Whether a server accepts and sends."""

    ACTIVE = "active", _("Active")
    PAUSED = "paused", _("Paused")
    BLOCKED = "blocked", _("Blocked")


class Server(models.Model):
    """One of an account's servers. `pool`: which egress sources it sends from. `keep_content`: also after delivery."""

    id = IdField(primary_key=True, default=new_server_id)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="servers")
    name = models.CharField(_("name"), max_length=120)
    kind = models.CharField(_("kind"), max_length=16, choices=ServerKind.choices)
    status = models.CharField(max_length=10, choices=ServerStatus.choices, default=ServerStatus.ACTIVE)
    pool = models.CharField(max_length=64, blank=True, default="")
    hourly_cap = models.PositiveBigIntegerField(_("recipients an hour"), null=True, blank=True)
    keep_content = models.BooleanField(_("keep content after delivery"), default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "name"], name="servers_server_name"),)

    def __str__(self) -> str:
        return self.name


class CredentialKind(models.TextChoices):
    """How a device or program shows who it is."""

    SMTP = "smtp", _("Username and password")
    NETWORK = "network", _("Network")
    API = "api", _("API key")


class CredentialStatus(models.TextChoices):
    """Whether a credential lets its device in."""

    ACTIVE = "active", _("Active")
    PAUSED = "paused", _("Paused")
    REVOKED = "revoked", _("Revoked")


class Credential(models.Model):
    """What one device or program signs in with. `former_hash` is good until `former_until` (rotation with overlap)."""

    id = IdField(primary_key=True, default=new_credential_id)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="credentials")
    server = models.ForeignKey(Server, on_delete=models.PROTECT, related_name="credentials")
    kind = models.CharField(_("kind"), max_length=8, choices=CredentialKind.choices)
    name = models.CharField(_("name of the device or program"), max_length=120)
    icon = models.CharField(max_length=32, blank=True, default="")
    username = models.CharField(_("username"), max_length=64, unique=True, null=True, blank=True)
    secret_hash = models.CharField(max_length=200, blank=True, default="")
    former_hash = models.CharField(max_length=200, blank=True, default="")
    former_until = models.DateTimeField(null=True, blank=True)
    networks = models.JSONField(_("networks"), default=list, blank=True)
    allow_from = models.JSONField(_("allowed From addresses"), default=list, blank=True)
    hourly_cap = models.PositiveBigIntegerField(_("recipients an hour"), null=True, blank=True)
    normalise_line_ends = models.BooleanField(_("mend line ends"), default=False)
    status = models.CharField(max_length=10, choices=CredentialStatus.choices, default=CredentialStatus.ACTIVE)
    created_at = models.DateTimeField(default=timezone.now)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_address = models.CharField(max_length=45, blank=True, default="")
    last_client = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        indexes = (models.Index(fields=["account", "server", "created_at"], name="servers_credential_server"),)

    def __str__(self) -> str:
        return self.name
