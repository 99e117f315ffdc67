"""The operator's page of one account: its state, plan and limits, domains, people, and what it sends."""

from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import services
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Account, Membership
from postbud.console.accounts.permissions import route
from postbud.console.domains.models import Domain
from postbud.console.link.allowance import allowance_of
from postbud.console.link.quota import used_of
from postbud.console.mail import statistics
from postbud.console.operator.forms import BlockForm, LimitsForm
from postbud.console.refused import Refused
from postbud.console.servers.models import Server
from postbud.console.ui.refusals import as_message, at_field

_WEEK = timedelta(days=7)


@route(scope="operator")
def account(request: HttpRequest, account: str) -> HttpResponse:
    """Show an account as the operator needs it."""
    return _page(request, _account(account))


@route(scope="operator", methods=("POST",))
def limits(request: HttpRequest, account: str) -> HttpResponse:
    """Set plan and hourly limit."""
    found = _account(account)
    form = LimitsForm(request.POST)
    if not form.is_valid():
        return _page(request, found, limits=form)
    try:
        services.set_limits(
            actor_of(request), found.id, plan=form.cleaned_data["plan"].id, hourly_cap=form.cleaned_data["hourly_cap"]
        )
    except Refused as refused:
        at_field(form, refused)
        return _page(request, found, limits=form)
    messages.success(request, _("Saved."))
    return redirect("operator:account", found.id)


@route(scope="operator", methods=("POST",))
def status(request: HttpRequest, account: str) -> HttpResponse:
    """Pause, resume, block, unblock or close an account."""
    found = _account(account)
    who, wanted = actor_of(request), request.POST.get("status", "")
    plain = {
        "pause": services.pause_account, "resume": services.resume_account, "unblock": services.unblock_account,
        "close": services.close_account,
    }  # fmt: skip
    try:
        if wanted == "block":
            form = BlockForm(request.POST)
            if not form.is_valid():
                return _page(request, found, block=form)
            services.block_account(who, found.id, form.cleaned_data["reference"])
        elif wanted in plain:
            plain[wanted](who, found.id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("operator:account", found.id)


def _page(
    request: HttpRequest, found: Account, *, limits: LimitsForm | None = None, block: BlockForm | None = None
) -> HttpResponse:
    now = timezone.now()
    context = {
        "customer": found,
        "limits": limits or LimitsForm(initial={"plan": found.plan_id, "hourly_cap": found.hourly_cap}),
        "blocking": block or BlockForm(),
        "week": statistics.total(found.id, now - _WEEK, now),
        "used": used_of(found.id, now),
        "allowance": allowance_of(found.id)[1],
        "domains": Domain.objects.filter(account=found.id).order_by("name"),
        "servers": Server.objects.filter(account=found.id).order_by("name"),
        "members": Membership.objects.select_related("person").filter(account=found.id).order_by("created_at"),
    }
    return render(request, "operator/account.html", context)


def _account(account: str) -> Account:
    found = Account.objects.select_related("plan").filter(id=account).first()
    if found is None:
        raise Http404
    return found
