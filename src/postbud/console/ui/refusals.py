"""How a service's no gets to its field of a form, or to the page where there is none. Does not know what was asked."""

from django import forms
from django.contrib import messages
from django.http import HttpRequest

from postbud.console.refused import Refused


def at_field(form: forms.Form, refused: Refused) -> None:
    """Put a refusal at the field that it names, or above the form."""
    form.add_error(refused.field if refused.field in form.fields else None, str(refused))


def as_message(request: HttpRequest, refused: Refused) -> None:
    """Show a refusal on the next page."""
    messages.error(request, str(refused))
