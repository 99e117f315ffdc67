"""Pages of an account's domains: which there are, the records to publish and what was seen of them.

Reads; what changes is changed by `services` and `checking`. Invariant: every query names the account of the address.
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from postbud.console.accounts.audit import Actor, actor_of
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.domains import checking, services
from postbud.console.domains.forms import DomainForm
from postbud.console.domains.looking import UNKNOWN, Seen
from postbud.console.domains.models import Domain, DomainStatus, KeyStatus
from postbud.console.domains.records import Purpose, Wanted, relative_name, zone_file
from postbud.console.refused import Refused
from postbud.console.ui.refusals import as_message, at_field

BOTH = ("GET", "HEAD", "POST")
POST = ("POST",)
_PURPOSES: dict[Purpose, tuple[str | Promise, str | Promise]] = {
    Purpose.PROOF: (gettext_lazy("Proof"), gettext_lazy("Shows that the domain is yours. Keep it: it is looked at every day.")),
    Purpose.DKIM: (gettext_lazy("Signature (DKIM)"), gettext_lazy("Receivers check our signature under your mail with it.")),
    Purpose.RETURN_PATH: (
        gettext_lazy("Return path (SPF)"),
        gettext_lazy("Bounces come back to us under your name, and SPF counts for your domain. Recommended."),
    ),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A record with what was seen of it, for the page."""

    wanted: Wanted
    title: str | Promise
    text: str | Promise
    short_name: str
    state: str
    seen: Seen | None


@route(Permission.VIEW)
def domains(request: HttpRequest, account_id: str) -> HttpResponse:
    """List the account's domains."""
    found = list(Domain.objects.filter(account=account_id).order_by("name"))
    return render(request, "domains/list.html", {"domains": found, "may_change": may(request, Permission.DOMAINS)})


@route(Permission.DOMAINS, methods=BOTH)
def create(request: HttpRequest, account_id: str) -> HttpResponse:
    """Add a domain."""
    form = DomainForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.add_domain(actor_of(request), account_id, form.cleaned_data["name"])
        except Refused as refused:
            at_field(form, refused)
        else:
            return redirect("domains:domain", account_id, made.id)
    return render(request, "domains/create.html", {"form": form})


@route(Permission.VIEW)
def domain(request: HttpRequest, account_id: str, domain_id: str) -> HttpResponse:
    """Show a domain: the records to publish, what was seen of each, and what that means."""
    found = _domain(account_id, domain_id)
    sight = checking.sight_of(found)
    lines = _lines(found)
    former = list(found.keys.filter(status=KeyStatus.RETIRED).order_by("-retired_at"))
    lost_at = found.failing_since + checking.LOST_AFTER if found.failing_since is not None else None
    context = {
        "domain": found,
        "lines": lines,
        "missing": sum(line.wanted.needed and line.state != "present" for line in lines),
        "sight": sight,
        "provider": checking.provider(found),
        "zone": zone_file(checking.records_of(found)),
        "former": former,
        "lost_at": lost_at if found.status == DomainStatus.VERIFIED else None,
        "may_change": may(request, Permission.DOMAINS),
        "watched": found.status == DomainStatus.PENDING,
    }
    return render(request, "domains/domain.html", context)


@route(Permission.DOMAINS, methods=POST)
def check(request: HttpRequest, account_id: str, domain_id: str) -> HttpResponse:
    """Look at the records now."""
    _domain(account_id, domain_id)
    try:
        found = checking.check(account_id, domain_id, timezone.now())
    except Refused as refused:
        as_message(request, refused)
        return redirect("domains:domains", account_id)
    sight = checking.sight_of(found)
    if sight is None or sight.proven is None:
        messages.warning(request, _("The name servers did not answer all questions. What was known stays; try again soon."))
    elif sight.proven:
        messages.success(request, _("The records are there."))
    else:
        messages.warning(request, _("Not all needed records are there yet."))
    return redirect("domains:domain", account_id, domain_id)


@route(Permission.VIEW)
def zone(request: HttpRequest, account_id: str, domain_id: str) -> HttpResponse:
    """Give the records as a zone file."""
    del request
    found = _domain(account_id, domain_id)
    response = HttpResponse(zone_file(checking.records_of(found)), content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.name}.zone"'
    return response


@route(Permission.DOMAINS, methods=POST)
def rotate(request: HttpRequest, account_id: str, domain_id: str) -> HttpResponse:
    """Make new keys."""
    return _do(request, account_id, domain_id, services.rotate_keys)


@route(Permission.DOMAINS, methods=POST)
def remove(request: HttpRequest, account_id: str, domain_id: str) -> HttpResponse:
    """Forget a domain."""
    found = _domain(account_id, domain_id)
    services.remove_domain(actor_of(request), account_id, domain_id)
    messages.success(request, _("%s was removed.") % found.name)
    return redirect("domains:domains", account_id)


def _do(request: HttpRequest, account_id: str, domain_id: str, service: Callable[[Actor, str, str], Domain]) -> HttpResponse:
    _domain(account_id, domain_id)
    try:
        service(actor_of(request), account_id, domain_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("domains:domain", account_id, domain_id)


def _lines(found: Domain) -> list[Line]:
    sight = checking.sight_of(found)
    seen = {one.name: one for one in sight.records} if sight is not None else {}
    zone_name = sight.zone if sight is not None and sight.zone else found.name
    lines = []
    for wanted in checking.records_of(found):
        if wanted.purpose is Purpose.DMARC:
            continue  # told by itself: it may stand elsewhere, and say something else
        title, text = _PURPOSES[wanted.purpose]
        one = seen.get(wanted.name)
        state = one.state if one is not None else UNKNOWN if sight is not None else "unchecked"
        lines.append(Line(wanted, title, text, relative_name(wanted.name, zone_name), state, one))
    return lines


def _domain(account_id: str, domain_id: str) -> Domain:
    found = Domain.objects.filter(account=account_id, id=domain_id).first()
    if found is None:
        raise Http404
    return found
