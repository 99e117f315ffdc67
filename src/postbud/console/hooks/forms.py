"""The form of an endpoint. Does not write; the services check the URL and the kinds, and say at which field they are wrong."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from postbud.console.hooks.services import KINDS


class EndpointForm(forms.Form):
    """Where to post, and what of."""

    url = forms.CharField(
        label=_("URL"),
        max_length=2048,
        widget=forms.URLInput(attrs={"placeholder": "https://shop.example/hooks/postbud", "spellcheck": "false"}),
        help_text=_("Your program's address. Postbud posts JSON to it and waits 10 seconds for a 2xx answer."),
    )
    description = forms.CharField(label=_("Note"), max_length=200, required=False)
    server = forms.ChoiceField(label=_("Of which server?"), required=False)
    kinds = forms.MultipleChoiceField(
        label=_("What to tell"),
        choices=[(kind, kind) for kind in KINDS],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("None ticked: everything, also what will be added later."),
    )

    def __init__(self, *args: Any, servers: list[tuple[str, str]], **options: Any) -> None:
        """`servers`: id and name of each server of the account."""
        super().__init__(*args, **options)
        self.fields["server"].choices = [("", _("All servers")), *servers]  # type: ignore[attr-defined]  # a ChoiceField
