"""People, accounts, who is a member of which, invitations, and the audit log.

Does not know servers, domains or mail. Invariants: an e-mail address is stored in lower case and once; an account has an owner
(`services` keeps one); audit entries are only ever added, numbered without gaps and chained by hash (`audit`).
"""

from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.billing.models import Plan
from postbud.console.fields import IdField
from postbud.console.ids import new_id


def new_person_id() -> str:
    """Make a person's id."""
    return new_id("per")


def new_account_id() -> str:
    """Make an account's id."""
    return new_id("acct")


def new_invitation_id() -> str:
    """Make an invitation's id."""
    return new_id("inv")


class PersonManager(BaseUserManager["Person"]):
    """Makes and finds people by their e-mail address, whatever its case."""

    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        """Give an address as it is stored."""
        return (email or "").strip().lower()

    def get_by_natural_key(self, username: str | None) -> "Person":
        """Find a person by e-mail address."""
        return self.get(email=self.normalize_email(username))

    def create_user(self, email: str, password: str | None = None, **fields: object) -> "Person":
        """Make a person; without a password only a passkey or a reset lets them in."""
        person = self.model(email=self.normalize_email(email), **fields)
        person.set_password(password)
        person.save(using=self._db)
        return person


class Person(AbstractBaseUser):
    """Somebody who signs in: one login, any number of accounts. `is_operator`: runs the installation."""

    id = IdField(primary_key=True, default=new_person_id)
    email = models.EmailField(_("e-mail address"), max_length=254, unique=True)
    name = models.CharField(_("name"), max_length=120, blank=True, default="")
    language = models.CharField(_("language"), max_length=8, blank=True, default="")
    time_zone = models.CharField(_("time zone"), max_length=64, blank=True, default="")
    is_operator = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(default=timezone.now)

    objects: ClassVar[PersonManager] = PersonManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    def save(self, *args: object, **options: object) -> None:
        """Store the address in lower case."""
        self.email = PersonManager.normalize_email(self.email)
        super().save(*args, **options)  # type: ignore[arg-type]  # handed on as they came

    def __str__(self) -> str:
        return self.name or self.email

    def get_full_name(self) -> str:
        """Give the name to greet with."""
        return self.name or self.email


class AccountStatus(models.TextChoices):
    """Whether an account may send. Blocked: by us, with a reference to ask about."""

    ACTIVE = "active", _("Active")
    PAUSED = "paused", _("Paused")
    BLOCKED = "blocked", _("Blocked")
    CLOSED = "closed", _("Closed")


class Account(models.Model):
    """A customer. `hourly_cap` empty: the plan's."""

    id = IdField(primary_key=True, default=new_account_id)
    name = models.CharField(_("name"), max_length=120)
    status = models.CharField(max_length=10, choices=AccountStatus.choices, default=AccountStatus.ACTIVE)
    block_reference = models.CharField(max_length=64, blank=True, default="")
    language = models.CharField(_("language"), max_length=8, blank=True, default="")
    time_zone = models.CharField(_("time zone"), max_length=64, blank=True, default="")
    mfa_required = models.BooleanField(_("everybody signs in with a second factor"), default=False)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="accounts")
    hourly_cap = models.PositiveBigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a member may do; `permissions` says what each role holds."""

    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    DEVELOPER = "developer", _("Developer")
    VIEWER = "viewer", _("Viewer")


class Membership(models.Model):
    """A person's part in an account. `weekly_at`: when the next weekly summary is due; empty: not asked for."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="memberships")
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(default=timezone.now)
    weekly_at = models.DateTimeField(null=True, blank=True, db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "person"], name="accounts_membership_once"),)

    def __str__(self) -> str:
        return f"{self.person} ({self.role})"


class Invitation(models.Model):
    """An offer to become a member, mailed as a link; only the SHA-256 of its token is kept."""

    id = IdField(primary_key=True, default=new_invitation_id)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(_("e-mail address"), max_length=254)
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    token_hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(Person, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = (models.Index(fields=["account", "created_at"], name="accounts_invitation_account"),)

    def __str__(self) -> str:
        return f"{self.email} ({self.role})"


class IdentityStatus(models.TextChoices):
    """How far a sender identity is. Submitted: an operator looks at it. Refused: with words why."""

    DRAFT = "draft", _("Not finished")
    SUBMITTED = "submitted", _("Being looked at")
    VERIFIED = "verified", _("Verified")
    REFUSED = "refused", _("Not accepted")


class SenderIdentity(models.Model):
    """Who an account is to its recipients: what a footer must name (policy C9) and registration data are held against (C8)."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="identity")
    legal_name = models.CharField(_("legal name"), max_length=200)
    street = models.CharField(_("street and number"), max_length=200)
    postcode = models.CharField(_("postcode"), max_length=20)
    city = models.CharField(_("city"), max_length=120)
    country = models.CharField(_("country"), max_length=2)
    register_number = models.CharField(_("register number"), max_length=40, blank=True, default="")
    mailbox = models.EmailField(_("contact mailbox"), max_length=254)
    phone = models.CharField(_("phone"), max_length=40, blank=True, default="")
    website = models.CharField(_("website"), max_length=200, blank=True, default="")
    brands = models.JSONField(_("brands"), default=list, blank=True)
    evidence_name = models.CharField(max_length=200, blank=True, default="")  # of the file; its octets are sealed beside
    status = models.CharField(max_length=10, choices=IdentityStatus.choices, default=IdentityStatus.DRAFT)
    remark = models.CharField(max_length=500, blank=True, default="")  # why it was not accepted
    submitted_at = models.DateTimeField(null=True, blank=True, db_index=True)
    judged_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.legal_name


class AuditEntry(models.Model):
    """One write: who, what, before and after, from where. `account` empty: the installation's own chain.

    `hash` is over the entry and `previous_hash`; see `audit`. Rows stay when what they tell of is gone.
    """

    account = IdField(blank=True, default="")
    number = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=10)
    actor = models.CharField(max_length=254)
    action = models.CharField(max_length=64)
    object_kind = models.CharField(max_length=32)
    object_id = models.CharField(max_length=400)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    address = models.CharField(max_length=45, blank=True, default="")
    user_agent = models.CharField(max_length=300, blank=True, default="")
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account", "number"], name="accounts_audit_number"),)
        indexes = (models.Index(fields=["account", "at"], name="accounts_audit_at"),)

    def __str__(self) -> str:
        return f"{self.account}/{self.number} {self.action}"


class AuditHead(models.Model):
    """Where an account's chain ends: its row is locked while an entry is added, so numbers have no gaps."""

    account = IdField(primary_key=True)
    number = models.PositiveBigIntegerField(default=0)
    hash = models.CharField(max_length=64, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.account}/{self.number}"


class CacheEntry(models.Model):
    """Rows of Django's cache in the database: counters of rate limits and used codes, shared by all processes."""

    cache_key = models.CharField(max_length=255, primary_key=True)
    value = models.TextField()
    expires = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "console_cache"

    def __str__(self) -> str:
        return self.cache_key


class Notice(models.Model):
    """A mail of ours that waits for the relay (`notices`); the content is sealed under its id."""

    id = IdField(primary_key=True)
    recipients = models.JSONField()
    sealed = models.BinaryField()
    created_at = models.DateTimeField()
    next_at = models.DateTimeField(db_index=True)
    attempts = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.id
