"""Forms of domains."""

from django import forms
from django.utils.translation import gettext_lazy as _


class DomainForm(forms.Form):
    """A domain to be added."""

    name = forms.CharField(
        label=_("Domain"), max_length=253,
        widget=forms.TextInput(attrs={"placeholder": "example.com", "autocapitalize": "off", "spellcheck": "false"}),
        help_text=_("What stands behind the @ of your senders. Its subdomains are covered too."),
    )  # fmt: skip
