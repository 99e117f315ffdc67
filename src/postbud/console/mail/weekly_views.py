"""Asking for the weekly summary, and ending it from the mail itself."""

from typing import cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from postbud.console.accounts.models import Person
from postbud.console.accounts.permissions import Permission, route
from postbud.console.mail import weekly


@route(Permission.VIEW, methods=("POST",))
def weekly_ask(request: HttpRequest, account_id: str) -> HttpResponse:
    """Begin or end the viewer's own weekly summary."""
    person = cast("Person", request.user)
    wanted = request.POST.get("wanted") == "yes"
    weekly.ask(account_id, person.id, timezone.now(), wanted=wanted)
    if wanted and weekly.wants(account_id, person.id):
        messages.success(request, _("The summary comes each Monday morning, from the next one."))
    elif wanted:
        messages.error(request, _("Only members of the account get its summary."))
    else:
        messages.success(request, _("The weekly summary is ended."))
    return redirect("mail:statistics", account_id)


@csrf_exempt  # mail programs post here on their own (RFC 8058): the token is what counts
@route(scope="public", methods=("GET", "HEAD", "POST"))
def weekly_end(request: HttpRequest, token: str) -> HttpResponse:
    """Show what a summary's link ends, and end it; looking alone ends nothing."""
    really = request.method == "POST"
    member = weekly.end(token, really=really)
    return render(request, "mail/weekly.html", {"member": member, "ended": really}, status=200 if member else 404)
