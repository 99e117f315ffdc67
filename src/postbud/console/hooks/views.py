"""Pages of an account's webhooks: endpoints, what was told to them, and how that went. What they change, `services` changes."""

from datetime import timedelta
from typing import Any

import msgspec
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_variables

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Account
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.hooks import services
from postbud.console.hooks.forms import EndpointForm
from postbud.console.hooks.models import Attempt, Endpoint, Hook, HookState
from postbud.console.servers.models import Server

_PAGE = 50
_SNIPPET = """from standardwebhooks.webhooks import Webhook

event = Webhook(SECRET).verify(request.body, request.headers)"""
_OVERLAP = timedelta(hours=24)
_WRITES = ("POST",)
_FORM = ("GET", "HEAD", "POST")


@route(Permission.VIEW)
def endpoints(request: HttpRequest, account_id: str) -> HttpResponse:
    """List the endpoints with how they do."""
    found = list(Endpoint.objects.filter(account=account_id).order_by("created_at"))
    waiting = {
        one.id: Hook.objects.filter(account=account_id, endpoint=one.id, state=HookState.WAITING).count() for one in found
    }
    rows = [{"endpoint": one, "waiting": waiting[one.id]} for one in found]
    return render(request, "hooks/list.html", {"rows": rows, "may_change": may(request, Permission.HOOKS)})


@sensitive_variables("secret")
@route(Permission.HOOKS, methods=_FORM)
def create(request: HttpRequest, account_id: str) -> HttpResponse:
    """Make an endpoint; the answer shows its secret once."""
    form = EndpointForm(request.POST or None, servers=_servers(account_id))
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            made, secret = services.create_endpoint(
                actor_of(request), account_id, values["url"], values["kinds"], timezone.now(),
                server=values["server"], description=values["description"],
            )  # fmt: skip
        except services.EndpointRefused as refused:
            form.add_error(refused.field, str(refused))
        else:
            return _show_secret(request, made, secret, created=True)
    return render(request, "hooks/form.html", {"form": form, "endpoint": None}, status=422 if form.errors else 200)


@route(Permission.VIEW)
def endpoint(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponse:
    """Show an endpoint and what was told to it, newest first."""
    found = _endpoint(account_id, endpoint_id)
    state = request.GET.get("state", "")
    hooks = Hook.objects.filter(account=account_id, endpoint=found.id).order_by("-id")
    if state in HookState.values:
        hooks = hooks.filter(state=state)
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        hooks = hooks.filter(id__lt=int(before))
    page = list(hooks.defer("body")[: _PAGE + 1])
    context = {
        "endpoint": found,
        "server": Server.objects.filter(account_id=account_id, id=found.server).first() if found.server else None,
        "hooks": page[:_PAGE],
        "older": page[_PAGE - 1].id if len(page) > _PAGE else None,
        "state": state,
        "states": HookState.values,
        "replayable": Hook.objects.filter(
            account=account_id, endpoint=found.id, state__in=(HookState.EXPIRED, HookState.DROPPED)
        ).exists(),
        "may_change": may(request, Permission.HOOKS),
    }
    return render(request, "hooks/endpoint.html", context)


@route(Permission.HOOKS, methods=_FORM)
def edit(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponse:
    """Change an endpoint."""
    found = _endpoint(account_id, endpoint_id)
    initial = {"url": found.url, "description": found.description, "server": found.server, "kinds": found.kinds}
    form = EndpointForm(request.POST or None, initial=initial, servers=_servers(account_id))
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            services.update_endpoint(
                actor_of(request), account_id, found.id, values["url"], values["kinds"],
                server=values["server"], description=values["description"],
            )  # fmt: skip
        except services.EndpointRefused as refused:
            form.add_error(refused.field, str(refused))
        else:
            messages.success(request, _("Saved."))
            return redirect("hooks:endpoint", account_id, found.id)
    return render(request, "hooks/form.html", {"form": form, "endpoint": found}, status=422 if form.errors else 200)


@route(Permission.HOOKS, methods=_WRITES)
def pause(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponseRedirect:
    """Call an endpoint no more for now."""
    return _set_active(request, account_id, endpoint_id, active=False)


@route(Permission.HOOKS, methods=_WRITES)
def resume(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponseRedirect:
    """Call an endpoint again."""
    return _set_active(request, account_id, endpoint_id, active=True)


def _set_active(request: HttpRequest, account_id: str, endpoint_id: str, *, active: bool) -> HttpResponseRedirect:
    found = _endpoint(account_id, endpoint_id)
    services.set_active(actor_of(request), account_id, found.id, active=active)
    messages.success(request, _("Posts go out again.") if active else _("Paused: nothing is posted to it."))
    return redirect("hooks:endpoint", account_id, found.id)


@sensitive_variables("secret")
@route(Permission.HOOKS, methods=_WRITES)
def rotate(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponse:
    """Make a new secret; the answer shows it once."""
    found = _endpoint(account_id, endpoint_id)
    secret = services.rotate_secret(actor_of(request), account_id, found.id, timezone.now(), _OVERLAP)
    return _show_secret(request, found, secret, created=False)


@sensitive_variables("secret")
def _show_secret(request: HttpRequest, shown: Endpoint, secret: str, *, created: bool) -> HttpResponse:
    context = {"endpoint": shown, "secret": secret, "created": created, "snippet": _SNIPPET}
    return render(request, "hooks/secret.html", context)


@route(Permission.HOOKS, methods=_WRITES)
def delete(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponseRedirect:
    """Remove an endpoint."""
    found = _endpoint(account_id, endpoint_id)
    services.delete_endpoint(actor_of(request), account_id, found.id)
    messages.success(request, _("Deleted."))
    return redirect("hooks:endpoints", account_id)


@route(Permission.HOOKS, methods=_WRITES)
def test(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponseRedirect:
    """Post a test; its page shows the answer as it comes."""
    found = _endpoint(account_id, endpoint_id)
    made = services.send_test(actor_of(request), account_id, found.id, timezone.now())
    return redirect("hooks:hook", account_id, found.id, made.pk)


@route(Permission.HOOKS, methods=_WRITES)
def replay(request: HttpRequest, account_id: str, endpoint_id: str) -> HttpResponseRedirect:
    """Post again what was given up, or one post."""
    found = _endpoint(account_id, endpoint_id)
    one = request.POST.get("hook", "")
    wanted = [int(one)] if one.isdecimal() and len(one) < 19 else None
    count = services.replay(actor_of(request), account_id, found.id, timezone.now(), wanted)
    text = ngettext("%(count)d post is sent again.", "%(count)d posts are sent again.", count)
    messages.success(request, text % {"count": count})
    return redirect("hooks:endpoint", account_id, found.id)


@route(Permission.VIEW)
def hook(request: HttpRequest, account_id: str, endpoint_id: str, hook_id: int) -> HttpResponse:
    """Show one post: what was said, every attempt and its answer. Asks again while it waits."""
    found = _endpoint(account_id, endpoint_id)
    told = Hook.objects.filter(account=account_id, endpoint=found.id, id=hook_id).first()
    if told is None:
        raise Http404
    context: dict[str, Any] = {
        "endpoint": found,
        "hook": told,
        "attempts": [
            {
                "at": one.at,
                "status": one.status,
                "milliseconds": one.milliseconds,
                "error": one.error,
                "answer": one.answer,
                "identity": f"answer-{one.pk}",
            }
            for one in Attempt.objects.filter(account=account_id, hook=told.pk).order_by("-at")[:20]
        ],
        "body": msgspec.json.format(bytes(told.body), indent=2).decode(),
        "may_change": may(request, Permission.HOOKS),
        "live": told.state == HookState.WAITING and told.attempts == 0,
    }
    return render(request, "hooks/hook.html", context)


def _endpoint(account_id: str, endpoint_id: str) -> Endpoint:
    found = Endpoint.objects.filter(account=account_id, id=endpoint_id).first()
    if found is None:
        raise Http404
    return found


def _servers(account_id: str) -> list[tuple[str, str]]:
    account = Account.objects.get(id=account_id)
    return list(Server.objects.filter(account=account).order_by("name").values_list("id", "name"))
