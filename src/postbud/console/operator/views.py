"""The operator's overview, the whole installation's statistics, and the relays."""

from datetime import timedelta

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Account, AccountStatus
from postbud.console.accounts.permissions import route
from postbud.console.domains.models import Domain, DomainStatus
from postbud.console.link import services as link
from postbud.console.link.models import Node
from postbud.console.mail import statistics
from postbud.console.mail.figures_views import asked_of, figures_context
from postbud.console.mail.models import WHOLE
from postbud.console.operator import gauges
from postbud.console.operator.forms import NodeForm
from postbud.console.refused import Refused
from postbud.console.ui.refusals import as_message, at_field

DAY = timedelta(hours=24)
_LANES = 10
_MOST_LANES = 500


@route(scope="operator")
def overview(request: HttpRequest) -> HttpResponse:
    """Show the installation at a glance: relays, what waits and why, who is stopped, what is to be judged."""
    now = timezone.now()
    nodes = gauges.nodes(now)
    numbers = [view.numbers for view in nodes if not view.silent]
    context = {
        "nodes": nodes,
        "day": statistics.total(WHOLE, now - DAY, now),
        "queued": int(sum(one.get("postbud_queued_deliveries", 0) for one in numbers)),
        "held": int(sum(one.get("postbud_held_deliveries", 0) for one in numbers)),
        "oldest_ms": 1000 * max((one.get("postbud_oldest_due_seconds", 0.0) for one in numbers), default=0.0),
        "lanes": [lane for lane in gauges.lanes_of(nodes) if lane.state != "flowing" or lane.ready][:_LANES],
        "stopped": Account.objects.filter(status__in=(AccountStatus.BLOCKED, AccountStatus.PAUSED)).order_by("name")[:_LANES],
        "failing": Domain.objects.select_related("account").filter(status=DomainStatus.VERIFIED, failing_since__isnull=False)[
            :_LANES
        ],
    }
    return render(request, "operator/overview.html", context)


@route(scope="operator")
def statistics_page(request: HttpRequest) -> HttpResponse:
    """Show the figures of all accounts together."""
    asked = asked_of(request, dimensions=("account", "domain", "site", "source", "class"), usual="account")
    names = dict(Account.objects.values_list("id", "name"))
    context = figures_context(request, WHOLE, asked, names, log="")
    return render(request, "operator/statistics.html", context)


@route(scope="operator")
def health(request: HttpRequest) -> HttpResponse:
    """Show what the doctor found on each machine, what fails first."""
    order = {"fail": 0, "warn": 1, "ok": 2}
    nodes = [view for view in gauges.nodes(timezone.now()) if view.state is not None and view.status != "revoked"]
    found = [
        {"node": view, "findings": sorted(view.state.health, key=lambda one: order.get(one.get("state", ""), 3))}
        for view in nodes
        if view.state is not None
    ]
    return render(request, "operator/health.html", {"found": found})


@route(scope="operator", methods=("GET", "HEAD", "POST"))
def relays(request: HttpRequest) -> HttpResponse:
    """List the machines with relays; POST lets one join, and shows its token, once."""
    form = NodeForm(request.POST if request.method == "POST" else None)
    made = token = None
    if request.method == "POST" and form.is_valid():
        try:
            made, token = link.add_node(actor_of(request), form.cleaned_data["name"].strip(), timezone.now())
        except Refused as refused:
            at_field(form, refused)
        else:
            form = NodeForm()
    context = {"nodes": gauges.nodes(timezone.now()), "form": form, "made": made, "token": token}
    return render(request, "operator/relays.html", context)


@route(scope="operator")
def relay(request: HttpRequest, node_id: str) -> HttpResponse:
    """Show a machine: its workers, listeners and lanes, as it last told."""
    view = gauges.node_view(_node(node_id), timezone.now())
    context = {"node": view, "lanes": view.lanes()[:_MOST_LANES], "numbers": sorted(view.numbers.items())}
    return render(request, "operator/relay.html", context)


@route(scope="operator", methods=("POST",))
def revoke(request: HttpRequest, node_id: str) -> HttpResponse:
    """Let a machine in no more."""
    try:
        link.revoke_node(actor_of(request), _node(node_id).id, timezone.now())
    except Refused as refused:
        as_message(request, refused)
    return redirect(reverse("operator:relays"))


def _node(node_id: str) -> Node:
    found = Node.objects.filter(id=node_id).first()
    if found is None:
        raise Http404
    return found
