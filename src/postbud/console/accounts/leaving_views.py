"""The owner's way out: everything as a file, and closing the account."""

from typing import cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import leaving, services
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Account
from postbud.console.accounts.permissions import Permission, route
from postbud.console.mail.services import note_export
from postbud.console.refused import Refused
from postbud.console.ui.refusals import as_message


@route(Permission.OWN)
def everything(request: HttpRequest, account_id: str) -> StreamingHttpResponse:
    """Give all that is known of the account, as a file that is written while it is read."""
    account = cast("Account", request.account)  # type: ignore[attr-defined]  # set by `route`
    note_export(actor_of(request), account_id, "everything", "")
    response = StreamingHttpResponse(leaving.everything(account, timezone.now()), content_type="application/x-ndjson")
    response.headers["Content-Disposition"] = f'attachment; filename="{account_id}.ndjson"'
    return response


@route(Permission.OWN, methods=("POST",))
def close(request: HttpRequest, account_id: str) -> HttpResponse:
    """Close the account, once its name was typed."""
    account = cast("Account", request.account)  # type: ignore[attr-defined]  # set by `route`
    if request.POST.get("name", "").strip() != account.name:
        messages.error(request, _("Type the account's name as it is written to close it."))
        return redirect("accounts:settings", account_id)
    try:
        services.close_account(actor_of(request), account_id)
    except Refused as refused:
        as_message(request, refused)
    else:
        told = _("The account is closed. It is erased in 30 days; until then its log can be read and exported.")
        messages.success(request, told)
    return redirect("accounts:settings", account_id)
