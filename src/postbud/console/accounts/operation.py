"""The operator's list of accounts. Reads all accounts, which only operators may; creates by `services`."""

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import membership, services
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.forms import OperatorAccountForm
from postbud.console.accounts.models import Account, Role
from postbud.console.accounts.permissions import route
from postbud.console.mail import figures
from postbud.console.refused import Refused
from postbud.console.transaction import write
from postbud.console.ui.refusals import at_field

PAGE = 50
DAY = timedelta(hours=24)


@route(scope="operator", methods=("GET", "HEAD", "POST"))
def accounts(request: HttpRequest) -> HttpResponse:
    """List all accounts; POST makes one and invites its owner."""
    form = OperatorAccountForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        who = actor_of(request)
        try:
            with write():
                made = services.create_account(who, form.cleaned_data["name"])
                membership.invite(who, made.id, form.cleaned_data["owner"], Role.OWNER)
        except Refused as refused:
            at_field(form, refused)
        else:
            messages.success(request, _("The account is there, and its owner is invited."))
            return redirect("accounts:home", made.id)
    q = request.GET.get("q", "").strip()
    found = _found(q, request.GET.get("before", ""))
    shown, more = found[:PAGE], len(found) > PAGE
    day = figures.by_account([one.id for one in shown], timezone.now() - DAY)
    for one in shown:
        one.day = day.get(one.id, figures.Figures())
    values = {
        "list": shown,
        "q": q,
        "form": form,
        "older": f"?q={q}&before={shown[-1].id}" if more else "",
        "newer": f"?q={q}" if request.GET.get("before") else "",
    }
    return render(request, "accounts/operator.html", values)


def _found(q: str, before: str) -> list[Any]:
    found = Account.objects.select_related("plan").annotate(
        server_count=Count("servers", distinct=True), people_count=Count("memberships", distinct=True)
    )
    if q:
        found = found.filter(Q(name__icontains=q) | Q(id=q))
    if before:
        found = found.filter(id__lt=before)
    return list(found.order_by("-id")[: PAGE + 1])
