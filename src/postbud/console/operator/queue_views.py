"""The operator's page of what waits: lanes of all relays, and commands to queued mail by selector."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.permissions import route
from postbud.console.link.models import Command
from postbud.console.operator import gauges, services
from postbud.console.operator.forms import SteerForm
from postbud.console.refused import Refused
from postbud.console.ui.refusals import at_field

_LANES = 200
_COMMANDS = 20


@route(scope="operator", methods=("GET", "HEAD", "POST"))
def queue(request: HttpRequest) -> HttpResponse:
    """Show lanes and the latest commands; POST tells the relays to do something."""
    form = SteerForm(request.POST if request.method == "POST" else None, initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        try:
            services.steer(actor_of(request), form.cleaned_data["kind"], form.selector(), timezone.now())
        except Refused as refused:
            at_field(form, refused)
        else:
            messages.success(request, _("Told to the relays."))
            return redirect("operator:queue")
    q = request.GET.get("q", "").strip().lower()[:253]
    lanes = [lane for lane in gauges.lanes_of(gauges.nodes(timezone.now())) if q in lane.site or q in lane.source]
    told = list(Command.objects.order_by("-created_at")[:_COMMANDS])
    for one in told:
        one.named = ", ".join(f"{name} {value}" for name, value in one.selector.items())  # type: ignore[attr-defined]  # for the page
    context = {"lanes": lanes[:_LANES], "more": len(lanes) > _LANES, "form": form, "told": told, "q": q}
    return render(request, "operator/queue.html", context)


def _initial(request: HttpRequest) -> dict[str, str]:
    return {name: str(value)[:253] for name, value in request.GET.items() if name in SteerForm.base_fields}
