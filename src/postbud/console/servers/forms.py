"""Forms of servers and credentials: words in, values out, refusals at their field.

Does not write. Invariant: what passes here is what the services take; they check again what must hold.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from postbud.console.servers.devices import PROFILES
from postbud.console.servers.models import Credential
from postbud.model.mailbox import Mailbox, MailboxError, parse_domain

MAX_CAP = 10_000_000
KINDS = (("transactional", _("Transactional")), ("marketing", _("Marketing")), ("sandbox", _("Sandbox")))
WAYS = (("smtp", _("It signs in with a username and password")), ("network", _("It cannot sign in: known by its address")))


class ServerForm(forms.Form):
    """A new server."""

    name = forms.CharField(label=_("Name"), max_length=80, help_text=_("What people call it: “office devices”, “shop”."))
    kind = forms.ChoiceField(label=_("Kind"), choices=KINDS, widget=forms.RadioSelect, initial="transactional")


class ServerSettingsForm(forms.Form):
    """What can be changed of a server; its kind cannot, since rules and reputation hang on it."""

    name = forms.CharField(label=_("Name"), max_length=80)
    hourly_cap = forms.IntegerField(
        label=_("Hourly limit (recipients)"),
        min_value=1,
        max_value=MAX_CAP,
        required=False,
        help_text=_("Empty: only the account's limit holds."),
    )
    keep_content = forms.BooleanField(
        label=_("Keep message content"), required=False,
        help_text=_("Encrypted, for as many days as the plan says. Otherwise it is forgotten once delivered."),
    )  # fmt: skip


class _Lines(forms.CharField):
    """A text field of which each line or word is one value."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "autocapitalize": "off"}), required=False, **options
        )

    def to_python(self, value: object) -> Any:
        return str(value or "").replace(",", " ").split()


class AllowFromField(_Lines):
    """Mailboxes, or `@domain` for a whole domain."""

    def clean(self, value: object) -> list[str]:
        """Give the values in their canonical form.

        Raises:
            ValidationError: one of them is neither.
        """
        senders = []
        for word in self.to_python(value):
            try:
                senders.append(f"@{parse_domain(word[1:])}" if word.startswith("@") else Mailbox.parse(word).key())
            except MailboxError as error:
                raise ValidationError(
                    _("“%(word)s” is neither a mailbox nor “@” and a domain."), params={"word": word}
                ) from error
        return senders


class NetworksField(_Lines):
    """IP addresses and networks."""

    def clean(self, value: object) -> list[str]:
        """Give the networks in their canonical form.

        Raises:
            ValidationError: one of them is none.
        """
        networks: list[IPv4Network | IPv6Network] = []
        for word in self.to_python(value):
            try:
                networks.append(ip_network(word))
            except ValueError as error:
                raise ValidationError(
                    _("“%(word)s” is not an address or network, such as 192.0.2.7 or 192.0.2.0/28."), params={"word": word}
                ) from error
        return [str(network) for network in networks]


class LimitsForm(forms.Form):
    """What a credential may do, and from where."""

    allow_from = AllowFromField(
        label=_("Allowed senders"),
        help_text=_("Mailboxes, or “@” and a domain, one a line. Empty: every mailbox at the account's domains."),
    )
    networks = NetworksField(
        label=_("Networks"), help_text=_("Only from there, such as 192.0.2.7 or 2001:db8::/64. Empty: from everywhere.")
    )
    hourly_cap = forms.IntegerField(
        label=_("Hourly limit (recipients)"),
        min_value=1,
        max_value=MAX_CAP,
        required=False,
        help_text=_("A printer that is broken into sends no million messages."),
    )
    normalise_line_ends = forms.BooleanField(
        label=_("Repair line endings"),
        required=False,
        help_text=_("For old devices that end lines with LF alone, and hear “550 5.5.2” for it."),
    )


class CredentialForm(LimitsForm):
    """A new credential: a device, a name, limits."""

    icon = forms.ChoiceField(
        label=_("What is it?"),
        choices=[(one.name, one.title) for one in PROFILES.values()],
        widget=forms.RadioSelect,
        initial="printer",
    )
    name = forms.CharField(
        label=_("Name"), max_length=80, help_text=_("So that you know which one it is: “printer, 2nd floor”.")
    )
    way = forms.ChoiceField(label=_("How does it show who it is?"), choices=WAYS, required=False, initial="smtp")
    once = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def clean(self) -> dict[str, Any]:
        """Refuse a credential that is known by its address but has none."""
        values = super().clean() or {}
        if (
            values.get("icon") != "api"
            and values.get("way") == "network"
            and not values.get("networks")
            and "networks" not in self.errors
        ):
            self.add_error("networks", _("Give the address that the device sends from."))
        return values

    def kind(self) -> str:
        """Give the kind of credential that was asked for."""
        if self.cleaned_data["icon"] == "api":
            return "api"
        return str(self.cleaned_data["way"] or "smtp")


class CredentialSettingsForm(LimitsForm):
    """What can be changed of a credential."""

    name = forms.CharField(label=_("Name"), max_length=80)
    field_order = ("name", "allow_from", "networks", "hourly_cap", "normalise_line_ends")

    @classmethod
    def of(cls, credential: Credential) -> "CredentialSettingsForm":
        """Give the form filled with a credential's settings."""
        values = {name: getattr(credential, name) for name in cls.base_fields}
        return cls(initial={name: "\n".join(value) if isinstance(value, list) else value for name, value in values.items()})
