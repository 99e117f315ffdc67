"""The page of an account's sender identity."""

from urllib.parse import quote

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from postbud.console.accounts import identity
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import SenderIdentity
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.refused import Refused
from postbud.console.ui.refusals import at_field


class IdentityForm(forms.Form):
    """Who sends."""

    legal_name = forms.CharField(
        label=gettext_lazy("Legal name"), max_length=200, help_text=gettext_lazy("As in the register.")
    )
    street = forms.CharField(label=gettext_lazy("Street and number"), max_length=200)
    postcode = forms.CharField(label=gettext_lazy("Postcode"), max_length=20)
    city = forms.CharField(label=gettext_lazy("City"), max_length=120)
    country = forms.ChoiceField(label=gettext_lazy("Country"), choices=lambda: [("", "–"), *identity.countries()])
    register_number = forms.CharField(
        label=gettext_lazy("Register number"), max_length=40, required=False,
        help_text=gettext_lazy("CVR, company or VAT number. Private persons have none."),
    )  # fmt: skip
    mailbox = forms.EmailField(
        label=gettext_lazy("Contact mailbox"), max_length=254, help_text=gettext_lazy("Where recipients reach you.")
    )
    phone = forms.CharField(label=gettext_lazy("Phone"), max_length=40, required=False)
    website = forms.CharField(label=gettext_lazy("Website"), max_length=200, required=False)
    brands = forms.CharField(
        label=gettext_lazy("Brands"), required=False, widget=forms.Textarea(attrs={"rows": 2}),
        help_text=gettext_lazy("Names that you send under besides the legal one, a line each."),
    )  # fmt: skip
    evidence = forms.FileField(
        label=gettext_lazy("Evidence"),
        required=False,
        help_text=gettext_lazy("An extract of the register, say: PDF, PNG or JPEG."),
    )


@route(Permission.VIEW, methods=("GET", "HEAD", "POST"))
def sender_identity(request: HttpRequest, account_id: str) -> HttpResponse:
    """Show who the account is to its recipients; POST writes it down."""
    found = identity.identity_of(account_id)
    may_change = may(request, Permission.ACCOUNT)
    if request.method == "POST":
        if not may_change:
            raise PermissionDenied
        form = IdentityForm(request.POST, request.FILES)
        if form.is_valid() and _submitted(request, account_id, form):
            messages.success(request, _("Saved. An operator looks at it."))
            return redirect("accounts:identity", account_id)
    else:
        form = IdentityForm(initial=_values(found))
    return render(request, "accounts/identity.html", {"identity": found, "form": form, "may_change": may_change})


@route(Permission.ACCOUNT)
def evidence(request: HttpRequest, account_id: str) -> HttpResponse:
    """Give the file of evidence, as a file."""
    del request
    found = identity.evidence_of(account_id)
    if found is None:
        raise Http404
    return as_file(*found)


def as_file(name: str, kind: str, octets: bytes) -> HttpResponse:
    """Give a file that is saved and never shown in the page's origin."""
    response = HttpResponse(octets, content_type=kind)
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _submitted(request: HttpRequest, account_id: str, form: IdentityForm) -> bool:
    values = {name: value for name, value in form.cleaned_data.items() if name != "evidence"}
    values["brands"] = str(values["brands"]).splitlines()
    try:
        identity.submit_identity(actor_of(request), account_id, **values)
        if (file := form.cleaned_data["evidence"]) is not None:
            octets = file.read(identity.MOST_EVIDENCE_OCTETS + 1)
            identity.add_evidence(actor_of(request), account_id, file.name, octets)
    except Refused as refused:
        at_field(form, refused)
        return False
    return True


def _values(found: SenderIdentity | None) -> dict[str, object]:
    if found is None:
        return {}
    names = [name for name in IdentityForm.base_fields if name not in {"brands", "evidence"}]
    return {name: getattr(found, name) for name in names} | {"brands": "\n".join(found.brands)}
