"""Forms about people and accounts. What they check is what a person can be told at the field; `services` checks the rest."""

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.models import Person


class SignupFields(forms.Form):
    """What signing up asks for beside e-mail address and password."""

    name = forms.CharField(label=_("Your name"), max_length=120, required=False)

    def signup(self, request: HttpRequest, user: Person) -> None:  # noqa: ARG002  # allauth's signature
        """Keep the name."""
        user.name = self.cleaned_data["name"]
        user.save(update_fields=["name"])
