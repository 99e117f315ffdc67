"""What operators look through: domains that wait for proof, the audit log of everybody, announcements."""

from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from postbud.console.accounts import identity
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.history import search_all
from postbud.console.accounts.identity_views import as_file
from postbud.console.accounts.models import IdentityStatus, SenderIdentity
from postbud.console.accounts.permissions import route
from postbud.console.domains import services as domain_services
from postbud.console.domains.models import Domain, DomainStatus
from postbud.console.operator import services
from postbud.console.operator.forms import AnnouncementForm
from postbud.console.operator.models import Announcement
from postbud.console.refused import Refused
from postbud.console.ui.refusals import as_message, at_field

_PAGE = 100
_VERDICTS = {"verify": domain_services.verify_domain, "lose": domain_services.lose_domain}


@route(scope="operator")
def domains(request: HttpRequest) -> HttpResponse:
    """List domains of all accounts: those that wait or fail first."""
    q, state = request.GET.get("q", "").strip().lower()[:253], request.GET.get("state", "")
    found = Domain.objects.select_related("account").order_by("-created_at")
    if q:
        found = found.filter(Q(name__icontains=q) | Q(account__name__icontains=q) | Q(account_id=q))
    if state == "failing":
        found = found.filter(failing_since__isnull=False, status=DomainStatus.VERIFIED)
    elif state in DomainStatus.values:
        found = found.filter(status=state)
    rows = list(found[: _PAGE + 1])
    context = {
        "domains": rows[:_PAGE],
        "more": len(rows) > _PAGE,
        "q": q,
        "state": state,
        "states": (*DomainStatus.values, "failing"),
    }
    return render(request, "operator/domains.html", context)


@route(scope="operator", methods=("POST",))
def judge_domain(request: HttpRequest, domain_id: str, verdict: str) -> HttpResponse:
    """Give one's word for a domain, or take it back."""
    found = Domain.objects.filter(id=domain_id).first()
    if found is None or verdict not in _VERDICTS:
        raise Http404
    try:
        _VERDICTS[verdict](actor_of(request), found.account_id, found.id)
    except Refused as refused:
        as_message(request, refused)
    else:
        messages.success(request, _("Done."))
    return redirect("operator:domains")


@route(scope="operator")
def identities(request: HttpRequest) -> HttpResponse:
    """List sender identities, those that wait first."""
    rows = SenderIdentity.objects.select_related("account").order_by("-submitted_at")
    waiting = list(rows.filter(status=IdentityStatus.SUBMITTED)[:_PAGE])
    judged = list(rows.exclude(status=IdentityStatus.SUBMITTED)[: _PAGE - len(waiting)])
    for one in (*waiting, *judged):
        valid = identity.number_is_valid(one.country, one.register_number) if one.register_number else False
        one.number_valid = valid  # type: ignore[attr-defined]  # for the template only
    return render(request, "operator/identities.html", {"identities": [*waiting, *judged]})


@route(scope="operator", methods=("POST",))
def judge(request: HttpRequest, account: str) -> HttpResponse:
    """Accept an identity, or say what is to be mended."""
    try:
        accepted = request.POST.get("verdict") == "accept"
        identity.judge_identity(actor_of(request), account, accepted=accepted, remark=request.POST.get("remark", ""))
    except Refused as refused:
        as_message(request, refused)
    return redirect("operator:identities")


@route(scope="operator")
def evidence(request: HttpRequest, account: str) -> HttpResponse:
    """Give an account's evidence, as a file."""
    del request
    found = identity.evidence_of(account)
    if found is None:
        raise Http404
    return as_file(*found)


@route(scope="operator")
def audit_search(request: HttpRequest) -> HttpResponse:
    """Search the audit log of every account and of the installation."""
    asked = {name: request.GET.get(name, "").strip()[:120] for name in ("account", "actor", "action", "object", "before")}
    context = search_all(**asked).shown(request.path) | {"asked": asked}
    return render(request, "operator/audit.html", context)


@route(scope="operator", methods=("GET", "HEAD", "POST"))
def announcements(request: HttpRequest) -> HttpResponse:
    """List what is said to everybody; POST says something."""
    now = timezone.now()
    form = AnnouncementForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            services.announce(actor_of(request), values["text"], values["weight"], now, values["ends_at"])
        except Refused as refused:
            at_field(form, refused)
        else:
            return redirect("operator:announcements")
    said = Announcement.objects.order_by("-starts_at")[:_PAGE]
    return render(request, "operator/announcements.html", {"said": said, "form": form, "now": now})


@route(scope="operator", methods=("POST",))
def end(request: HttpRequest, announcement_id: str) -> HttpResponse:
    """Take an announcement off the pages."""
    services.end_announcement(actor_of(request), announcement_id, timezone.now())
    return redirect("operator:announcements")
