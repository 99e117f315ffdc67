"""Pages of the API: its keys, and its reference made from its own description."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.api import application, services
from postbud.console.api.models import ManagementKey
from postbud.console.api.problem import problem
from postbud.console.configuration import current
from postbud.console.refused import Refused
from postbud.console.ui.refusals import as_message, at_field

BOTH = ("GET", "HEAD", "POST")
_SHOWN = 100
_EXPLAINED = {
    Permission.VIEW: _("Look at everything but contents"),
    Permission.CONTENT: _("Contents of messages"),
    Permission.SEND: _("Retry, cancel, release and send again"),
    Permission.SERVERS: _("Servers and their credentials"),
    Permission.DOMAINS: _("Domains"),
    Permission.HOOKS: _("Webhooks"),
    Permission.ACCOUNT: _("Name, language and time zone of the account"),
}


class KeyForm(forms.Form):
    """A new key."""

    name = forms.CharField(label=_("Name"), max_length=120, help_text=_("What uses it, such as “Invoices, nightly”."))
    permissions = forms.MultipleChoiceField(
        label=_("It may"), required=False, widget=forms.CheckboxSelectMultiple,
        choices=[(one.value, _EXPLAINED[one]) for one in services.GRANTED if one is not Permission.VIEW],
        help_text=_("Besides looking at everything but contents."),
    )  # fmt: skip


@route(Permission.ACCOUNT, methods=BOTH)
def keys(request: HttpRequest, account_id: str) -> HttpResponse:
    """List the account's keys; POST makes one, and shows it, once."""
    form = KeyForm(request.POST if request.method == "POST" else None)
    made = text = None
    if request.method == "POST" and form.is_valid():
        held = [permission for permission in Permission if may(request, permission)]
        values = form.cleaned_data
        try:
            made, text = services.create_key(actor_of(request), account_id, values["name"], values["permissions"], held)
        except Refused as refused:
            at_field(form, refused)
        else:
            form = KeyForm()
    listed = list(ManagementKey.objects.filter(account=account_id).order_by("-created_at")[:_SHOWN])
    context = {"keys": listed, "form": form, "made": made, "text": text, "api_url": f"{current().public_url}/api/v1"}
    return render(request, "api/keys.html", context)


@route(Permission.ACCOUNT, methods=("POST",))
def revoke(request: HttpRequest, account_id: str, key_id: str) -> HttpResponse:
    """Let a key open nothing any more."""
    try:
        services.revoke_key(actor_of(request), account_id, key_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("api:keys", account_id)


@route(scope="public")
def reference(request: HttpRequest) -> HttpResponse:
    """Show every operation of the API, from its description."""
    return render(request, "api/reference.html", {"groups": _groups(), "api_url": f"{current().public_url}/api/v1"})


@route(scope="public", methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
def nothing_there(request: HttpRequest, rest: str) -> HttpResponse:
    """Answer an address of the API that names nothing, as the API answers."""
    del request
    return problem(404, "not_found", "There is no such thing", f"there is no /api/v1/{rest[:100]}")


def _groups() -> list[dict[str, Any]]:
    schema = application.api().get_openapi_schema()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            groups.setdefault(operation["tags"][0], []).append(
                {
                    "method": method.upper(),
                    "path": path.removeprefix("/api/v1"),
                    "summary": operation.get("summary", ""),
                    "text": operation.get("description", ""),
                    "parameters": [_parameter(one) for one in operation.get("parameters", [])],
                    "fields": _fields(schema, body),
                    "answers": sorted(str(status) for status in operation["responses"]),
                }
            )
    return [{"name": name, "operations": operations} for name, operations in groups.items()]


def _parameter(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": one["name"],
        "where": one["in"],
        "required": one.get("required", False),
        "type": _type(one.get("schema", {})),
    }


def _fields(schema: dict[str, Any], body: dict[str, Any]) -> list[dict[str, Any]]:
    found = schema["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {})
    needed = found.get("required", [])
    return [
        {"name": name, "required": name in needed, "type": _type(value)} for name, value in found.get("properties", {}).items()
    ]


def _type(value: dict[str, Any]) -> str:
    if "enum" in value:
        return " | ".join(str(one) or '""' for one in value["enum"])
    if "const" in value:
        return str(value["const"])
    if "anyOf" in value:
        return " or ".join(_type(one) for one in value["anyOf"])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    return str(value.get("format") or value.get("type") or "object")
