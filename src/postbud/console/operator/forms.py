"""Forms of the operator's pages."""

from datetime import timedelta

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.billing.models import Plan
from postbud.console.operator.models import Weight
from postbud.model.link import Selector

_INSTANT = "%Y-%m-%dT%H:%M"


class NodeForm(forms.Form):
    """A machine that may join."""

    name = forms.CharField(label=_("Name of the machine"), max_length=120, help_text=_("Such as relay2.example.com."))


class SteerForm(forms.Form):
    """Which queued mail, and what to do with it."""

    kind = forms.ChoiceField(
        label=_("What to do"),
        choices=[("retry", _("Try now")), ("hold", _("Hold")), ("release", _("Release")), ("cancel", _("Cancel"))],
    )
    account = forms.CharField(label=_("Account"), max_length=64, required=False)
    server = forms.CharField(label=_("Server"), max_length=64, required=False)
    credential = forms.CharField(label=_("Device or program"), max_length=64, required=False)
    domain = forms.CharField(label=_("Recipient's domain"), max_length=253, required=False)
    message = forms.CharField(label=_("Message"), max_length=64, required=False)
    delivery = forms.CharField(label=_("Delivery"), max_length=64, required=False)

    def selector(self) -> Selector:
        """Give what is meant. Call after `is_valid`."""
        values = self.cleaned_data
        names = ("account", "server", "credential", "domain", "message", "delivery")
        return Selector(
            **{
                name: values[name].strip().lower() if name == "domain" else values[name].strip()
                for name in names
                if values[name]
            }
        )


class LimitsForm(forms.Form):
    """An account's plan and its own hourly limit."""

    plan = forms.ModelChoiceField(label=_("Plan"), queryset=Plan.objects.order_by("name"), empty_label=None)
    hourly_cap = forms.IntegerField(
        label=_("Hourly limit (recipients)"), min_value=1, max_value=10**9, required=False, help_text=_("Empty: the plan's.")
    )


class BlockForm(forms.Form):
    """Why an account is blocked."""

    reference = forms.CharField(
        label=_("Reference"), max_length=64, help_text=_("Devices hear it, so that people know what to ask about.")
    )


class AnnouncementForm(forms.Form):
    """A text for everybody's pages."""

    text = forms.CharField(label=_("Text"), max_length=500, widget=forms.Textarea(attrs={"rows": 2}))
    weight = forms.ChoiceField(label=_("Weight"), choices=Weight.choices)
    ends_at = forms.DateTimeField(
        label=_("Until"), widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=_INSTANT),
        initial=lambda: timezone.localtime() + timedelta(days=3),
    )  # fmt: skip
