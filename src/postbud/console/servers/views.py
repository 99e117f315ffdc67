"""Pages of an account's servers and their credentials.

Reads; what changes is changed by `services`. Invariants: every query names the account of the address; a secret is in the
answer to the request that made it and nowhere else, neither in a session nor in a log.
"""

import secrets
from datetime import datetime, timedelta
from typing import cast

from django.contrib import messages
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Account
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.mail import figures
from postbud.console.refused import Refused
from postbud.console.servers import handing, services
from postbud.console.servers.devices import PROFILES, profile
from postbud.console.servers.forms import CredentialForm, CredentialSettingsForm, ServerForm, ServerSettingsForm
from postbud.console.servers.models import Credential, CredentialKind, CredentialStatus, Server
from postbud.console.ui.refusals import as_message, at_field

BOTH = ("GET", "HEAD", "POST")
POST = ("POST",)
OVERLAPS_SECONDS = (0, 3600, 86400, 7 * 86400, 30 * 86400)
_DONE = "postbud_made"  # in the session: forms that made something, so that sending one again makes nothing
_REMEMBERED = 20


@route(Permission.VIEW)
def servers(request: HttpRequest, account_id: str) -> HttpResponse:
    """List the account's servers with their state and today's figures."""
    found = Server.objects.filter(account=account_id).annotate(
        credential_count=Count("credentials", filter=~Q(credentials__status=CredentialStatus.REVOKED))
    )
    today = figures.by_key(account_id, "server", _midnight())
    shown = list(found.order_by("created_at"))
    for one in shown:
        one.today = today.get(one.id, figures.Figures())  # type: ignore[attr-defined]  # for the template only
    return render(request, "servers/list.html", {"servers": shown, "may_change": may(request, Permission.SERVERS)})


@route(Permission.SERVERS, methods=BOTH)
def create(request: HttpRequest, account_id: str) -> HttpResponse:
    """Make a server."""
    form = ServerForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.create_server(actor_of(request), account_id, form.cleaned_data["name"], form.cleaned_data["kind"])
        except Refused as refused:
            at_field(form, refused)
        else:
            return redirect("servers:server", account_id, made.id)
    return render(request, "servers/create.html", {"form": form})


@route(Permission.VIEW)
def server(request: HttpRequest, account_id: str, server_id: str) -> HttpResponse:
    """Show a server: today, its devices and programs, facts."""
    found = _server(account_id, server_id)
    credentials = list(found.credentials.order_by("created_at"))
    credentials.sort(key=lambda one: one.status == CredentialStatus.REVOKED)
    for one in credentials:
        one.profile = profile(one.icon)  # type: ignore[attr-defined]  # for the template only
    today = figures.by_key(account_id, "server", _midnight(), [server_id]).get(server_id, figures.Figures())
    values = {"server": found, "credentials": credentials, "today": today, "may_change": may(request, Permission.SERVERS)}
    return render(request, "servers/server.html", values)


@route(Permission.SERVERS, methods=BOTH)
def edit(request: HttpRequest, account_id: str, server_id: str) -> HttpResponse:
    """Change a server's name and limits."""
    found = _server(account_id, server_id)
    given = {name: getattr(found, name) for name in ServerSettingsForm.base_fields}
    form = ServerSettingsForm(request.POST) if request.method == "POST" else ServerSettingsForm(initial=given)
    if request.method == "POST" and form.is_valid():
        try:
            services.update_server(actor_of(request), account_id, server_id, **form.cleaned_data)
        except Refused as refused:
            at_field(form, refused)
        else:
            messages.success(request, _("Saved."))
            return redirect("servers:server", account_id, server_id)
    return render(request, "servers/edit.html", {"server": found, "form": form})


@route(Permission.SERVERS, methods=POST)
def pause(request: HttpRequest, account_id: str, server_id: str) -> HttpResponse:
    """Pause a server."""
    _server(account_id, server_id)
    try:
        services.pause_server(actor_of(request), account_id, server_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("servers:server", account_id, server_id)


@route(Permission.SERVERS, methods=POST)
def resume(request: HttpRequest, account_id: str, server_id: str) -> HttpResponse:
    """End a server's pause."""
    _server(account_id, server_id)
    try:
        services.resume_server(actor_of(request), account_id, server_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("servers:server", account_id, server_id)


@route(Permission.SERVERS, methods=BOTH)
def credential_create(request: HttpRequest, account_id: str, server_id: str) -> HttpResponse:
    """Make a credential, and hand over its settings with the secret: the only time that it is shown."""
    found = _server(account_id, server_id)
    form = CredentialForm(request.POST) if request.method == "POST" else CredentialForm(initial={"once": _once()})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        if (made_before := _made(request, values["once"])) is not None:
            return _shown_already(request, account_id, made_before)
        try:
            made, secret = services.create_credential(
                actor_of(request),
                account_id,
                server_id,
                kind=form.kind(),
                name=values["name"],
                icon=values["icon"],
                networks=values["networks"],
                allow_from=values["allow_from"],
                hourly_cap=values["hourly_cap"],
                normalise_line_ends=values["normalise_line_ends"],
            )
        except Refused as refused:
            at_field(form, refused)
        else:
            _note_made(request, values["once"], made.id)
            return handing.page(request, _account(request), made, secret, rotated=False)
    values = {"server": found, "form": form, "profiles": PROFILES.values()}
    return render(request, "servers/credential_create.html", values)


@route(Permission.VIEW, methods=BOTH)
def credential(request: HttpRequest, account_id: str, credential_id: str) -> HttpResponse:
    """Show a credential: settings, limits, last use; POST changes name and limits."""
    found = _credential(account_id, credential_id)
    may_change = may(request, Permission.SERVERS)
    form = CredentialSettingsForm(request.POST) if request.method == "POST" else CredentialSettingsForm.of(found)
    if request.method == "POST":
        if not may_change:
            return render(request, "403.html", status=403)
        if form.is_valid():
            try:
                services.update_credential(actor_of(request), account_id, credential_id, **form.cleaned_data)
            except Refused as refused:
                at_field(form, refused)
            else:
                messages.success(request, _("Saved."))
                return redirect("servers:credential", account_id, credential_id)
    former = found.former_until is not None and found.former_until > timezone.now()
    values = {
        "server": found.server,
        "credential": found,
        "profile": profile(found.icon),
        "lines": handing.lines_of(_account(request), found, secret=""),
        "former": former,
        "form": form,
        "may_change": may_change,
        "once": _once(),
        "overlaps": [(seconds, _overlap(seconds)) for seconds in OVERLAPS_SECONDS],
    }
    return render(request, "servers/credential.html", values)


@route(Permission.SERVERS, methods=POST)
def rotate(request: HttpRequest, account_id: str, credential_id: str) -> HttpResponse:
    """Make a new secret and show it, once."""
    found = _credential(account_id, credential_id)
    once, overlap = request.POST.get("once", ""), request.POST.get("overlap", "")
    if _made(request, once) is not None or not once:
        return _shown_already(request, account_id, credential_id)
    try:
        lasting = timedelta(seconds=int(overlap)) if overlap.isdecimal() and len(overlap) < 9 else timedelta(days=1)
        found, secret = services.rotate_credential(actor_of(request), account_id, credential_id, lasting)
    except Refused as refused:
        as_message(request, refused)
        return redirect("servers:credential", account_id, credential_id)
    _note_made(request, once, credential_id)
    return handing.page(request, _account(request), found, secret, rotated=True)


@route(Permission.SERVERS, methods=POST)
def revoke(request: HttpRequest, account_id: str, credential_id: str) -> HttpResponse:
    """Revoke a credential."""
    _credential(account_id, credential_id)
    try:
        services.revoke_credential(actor_of(request), account_id, credential_id)
    except Refused as refused:
        as_message(request, refused)
    return redirect("servers:credential", account_id, credential_id)


@route(Permission.SERVERS, methods=POST)
def trial(request: HttpRequest, account_id: str, credential_id: str) -> HttpResponse:
    """Send a test with the credential whose secret the page still shows."""
    found = _credential(account_id, credential_id)
    if found.kind != CredentialKind.SMTP or not request.POST.get("secret"):
        raise Http404
    return handing.send(request, _account(request), found, request.POST["secret"])


@route(Permission.SERVERS)
def trial_state(request: HttpRequest, account_id: str, credential_id: str, message_id: str) -> HttpResponse:
    """Show how a test fares; the page asks again until there is nothing more to come."""
    found = _credential(account_id, credential_id)
    return handing.watch(request, _account(request), found, message_id)


def _server(account_id: str, server_id: str) -> Server:
    found = Server.objects.filter(account=account_id, id=server_id).first()
    if found is None:
        raise Http404
    return found


def _credential(account_id: str, credential_id: str) -> Credential:
    found = Credential.objects.select_related("server").filter(account=account_id, id=credential_id).first()
    if found is None:
        raise Http404
    return found


def _account(request: HttpRequest) -> Account:
    return cast("Account", request.account)  # type: ignore[attr-defined]  # set by `route`


def _midnight() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def _once() -> str:
    return secrets.token_urlsafe(12)


def _made(request: HttpRequest, once: str) -> str | None:
    done: dict[str, str] = request.session.get(_DONE, {})
    return done.get(once)


def _note_made(request: HttpRequest, once: str, credential_id: str) -> None:
    done = list(request.session.get(_DONE, {}).items())[-_REMEMBERED:]
    request.session[_DONE] = dict([*done, (once, credential_id)])


def _shown_already(request: HttpRequest, account_id: str, credential_id: str) -> HttpResponse:
    messages.warning(request, _("The secret was shown already. If it is lost, create a new one."))
    return redirect("servers:credential", account_id, credential_id)


def _overlap(seconds: int) -> str:
    if not seconds:
        return _("not at all")
    if seconds < 86400:
        return ngettext("%d hour", "%d hours", seconds // 3600) % (seconds // 3600)
    return ngettext("%d day", "%d days", seconds // 86400) % (seconds // 86400)
