"""Pages of the message log. They read; what people do to mail is a command (`actions`)."""

from urllib.parse import quote

from django.core.exceptions import BadRequest
from django.forms import BoundField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.permissions import Permission, may, route
from postbud.console.configuration import current
from postbud.console.link.content import ContentStore
from postbud.console.link.models import Command
from postbud.console.mail import queries, services
from postbud.console.mail.export import as_csv, as_ndjson
from postbud.console.mail.forms import SearchForm
from postbud.console.mail.models import DeliveryRow, DeliveryState, MessageRow, SavedView
from postbud.console.mail.preview import PREVIEW_POLICY, Preview, preview
from postbud.console.mail.queries import Position
from postbud.console.mail.story import tell
from postbud.console.refused import Refused
from postbud.console.servers.models import Credential, Server
from postbud.console.ui.refusals import as_message
from postbud.model.sealed import SealError

_WATCHED = 100
_DELIVERIES = 500
_COMMANDS = 3
_COMMAND_WORDS = {
    "retry": _("Try now"),
    "release": _("Release"),
    "cancel": _("Cancel"),
    "hold": _("Hold"),
    "resend": _("Send again"),
}
_IDS = ("msg_", "dlv_")
_MORE = ("mailbox", "credential", "domain", "site", "source", "classified", "code", "start", "end")


@route(Permission.VIEW)
def messages(request: HttpRequest, account_id: str) -> HttpResponse:
    """List deliveries, newest first, by what the address bar asks for."""
    form = _form(request, account_id)
    form.is_valid()
    asked = str(form.cleaned_data.get("q") or "")
    if asked.startswith(_IDS):
        found = queries.message_of(account_id, asked)
        if found is not None:
            return redirect("mail:message", account_id, found.id)
    search = form.search(account_id)
    before = Position.parse(request.GET.get("before", ""))
    page = queries.find(search, before)
    if request.headers.get("X-Still-Empty") and not page.rows:
        return HttpResponse(status=204)  # an empty log that is watched: nothing to swap yet
    views, asked_query = _views(request, account_id), services.clean_query(request.GET.urlencode())
    context = {
        "form": form,
        "page": page,
        "rows": page.rows,
        "names": _names(account_id),
        "live": before is None and not form.cleaned_data.get("end"),
        "narrowed": form.narrowed,
        "nothing_sent": not page.rows and not form.narrowed and not DeliveryRow.objects.filter(account=account_id).exists(),
        "servers": Server.objects.filter(account_id=account_id).count(),
        "views": views,
        "asked": asked_query,
        "kept": any(view.query == asked_query for view in views),
    }
    context |= {
        "pickers": [_control(form, name) for name in ("period", "state", "server")],
        "more": [form[name] for name in _MORE],
        "more_open": any(form.cleaned_data.get(name) for name in _MORE),
    }
    partial = request.headers.get("HX-Target") == "results"
    return render(request, "mail/results.html" if partial else "mail/list.html", context)


@route(Permission.VIEW)
def newer(request: HttpRequest, account_id: str) -> HttpResponse:
    """Give rows that came in after the newest one shown, and the shown ones as they stand: the live tail asks for it."""
    form = _form(request, account_id)
    form.is_valid()
    after = Position.parse(request.GET.get("after", ""))
    search = form.search(account_id)
    waiting = [Position.parse(text) for text in request.GET.getlist("waiting")[:_WATCHED]]
    context = {
        "rows": queries.newer(search, after) if after is not None else queries.find(search).rows,
        "changed": queries.changed(account_id, [one for one in waiting if one is not None]),
        "names": _names(account_id),
    }
    return render(request, "mail/newer.html", context)


@route(Permission.VIEW)
def message(request: HttpRequest, account_id: str, message_id: str) -> HttpResponse:
    """Show one message whole."""
    found = queries.message_of(account_id, message_id)
    if found is None:
        raise Http404
    deliveries = list(DeliveryRow.objects.filter(account=account_id, message=found.id).order_by("id")[:_DELIVERIES])
    kept = services.has_content(account_id, found.id)
    sendable = may(request, Permission.SEND)
    commands = _commands(account_id, found.id)
    context = {
        "message": found,
        "story": tell(found, deliveries),
        "commands": commands,
        "asked": any(one["answered_at"] is None for one in commands),
        "names": _names(account_id),
        "may_send": sendable,
        "resendable": services.resendable(found, deliveries, timezone.now(), kept=kept) if sendable else set(),
        "resent_from": _resent_from(account_id, found.id),
        "waiting": any(not one.is_final for one in deliveries),
        "held": any(one.state == DeliveryState.HELD for one in deliveries),
        "content": kept and may(request, Permission.CONTENT),
    }
    return render(request, "mail/message.html", context)


@route(Permission.SEND, methods=("POST",))
def act(request: HttpRequest, account_id: str, message_id: str) -> HttpResponse:
    """Tell the relays to do something with a message."""
    found = queries.message_of(account_id, message_id)
    if found is None:
        raise Http404
    if delivery := request.POST.get("resend"):
        try:
            services.resend(actor_of(request), account_id, found, delivery, timezone.now())
        except Refused as refused:
            as_message(request, refused)
        return redirect("mail:message", account_id, found.id)
    wanted = services.ALLOWED.get(request.POST.get("command", ""))
    if wanted is None:
        raise BadRequest("no such command")
    services.command(actor_of(request), account_id, wanted, found.id, timezone.now())
    return redirect("mail:message", account_id, found.id)


@route(Permission.VIEW)
def export(request: HttpRequest, account_id: str, kind: str) -> HttpResponseBase:
    """Give everything that the present search finds, as a file that is written while it is read."""
    form = _form(request, account_id)
    form.is_valid()
    names = _names(account_id)
    rows = queries.every(form.search(account_id))
    services.note_export(actor_of(request), account_id, kind, request.GET.urlencode())
    content_type = "text/csv; charset=utf-8" if kind == "csv" else "application/x-ndjson"
    lines = as_csv(rows, names) if kind == "csv" else as_ndjson(rows, names)
    response = StreamingHttpResponse(lines, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="messages-{timezone.now():%Y%m%d-%H%M}.{kind}"'
    return response


@route(Permission.VIEW, methods=("POST",))
def keep_view(request: HttpRequest, account_id: str) -> HttpResponse:
    """Keep a search under a name."""
    query = services.clean_query(request.POST.get("query", ""))
    try:
        services.keep_view(actor_of(request), account_id, _person(request), request.POST.get("name", ""), query)
    except Refused as refused:
        as_message(request, refused)
    return _to_search(account_id, query)


@route(Permission.VIEW, methods=("POST",))
def drop_view(request: HttpRequest, account_id: str, view_id: str) -> HttpResponse:
    """Forget a kept search."""
    if not services.drop_view(actor_of(request), account_id, _person(request), view_id):
        raise Http404
    return _to_search(account_id, "")


@route(Permission.CONTENT)
def content(request: HttpRequest, account_id: str, message_id: str) -> HttpResponse:
    """Show what a message holds, as far as it was kept. That it was read is noted."""
    found, octets = _content(account_id, message_id)
    services.note_read(actor_of(request), account_id, found.id)
    return render(request, "mail/content.html", {"message": found, "preview": preview(octets), "octets": len(octets)})


@route(Permission.CONTENT)
def content_html(request: HttpRequest, account_id: str, message_id: str) -> HttpResponse:  # noqa: ARG001  # a view's signature
    """Give a message's HTML for the frame of its page: nothing in it runs, nothing is loaded, it belongs to no origin."""
    shown: Preview = preview(_content(account_id, message_id)[1])
    response = HttpResponse(shown.html, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = PREVIEW_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@route(Permission.CONTENT)
def content_raw(request: HttpRequest, account_id: str, message_id: str) -> HttpResponse:
    """Give a message as it was kept, as a file. That it was read is noted."""
    found, octets = _content(account_id, message_id)
    services.note_read(actor_of(request), account_id, found.id)
    response = HttpResponse(octets, content_type="message/rfc822")
    response.headers["Content-Disposition"] = f'attachment; filename="{quote(found.id)}.eml"'
    response.headers["Content-Security-Policy"] = PREVIEW_POLICY
    return response


def _content(account_id: str, message_id: str) -> tuple[MessageRow, bytes]:
    found = queries.message_of(account_id, message_id)
    if found is None:
        raise Http404
    try:
        octets = ContentStore(current().folder / "content").read(account_id, found.id)
    except (OSError, SealError) as error:
        raise Http404("the content cannot be read any more") from error
    if octets is None:
        raise Http404
    return found, octets


def _person(request: HttpRequest) -> str:
    return str(request.user.pk)


def _to_search(account_id: str, query: str) -> HttpResponse:
    response = redirect("mail:messages", account_id)
    if query:
        response.headers["Location"] += f"?{query}"
    return response


def _views(request: HttpRequest, account_id: str) -> list[SavedView]:
    return list(SavedView.objects.filter(account=account_id, person=_person(request)).order_by("name"))


def _commands(account_id: str, message_id: str) -> list[dict[str, object]]:
    """Give what people told the relays to do with a message lately."""
    told = Command.objects.filter(account=account_id, selector__message=message_id).order_by("-created_at")[:_COMMANDS]
    return [
        {
            "word": _COMMAND_WORDS.get(one.command, one.command),
            "answered_at": one.answered_at,
            "changed": one.changed,
            "made": one.made,
            "said": one.said,
            "created_at": one.created_at,
        }
        for one in told
    ]


def _resent_from(account_id: str, message_id: str) -> str:
    """Give the message that this one is a repetition of, empty when it is none."""
    told = Command.objects.filter(account=account_id, made=message_id).first()
    return str(told.selector.get("message", "")) if told is not None else ""


def _form(request: HttpRequest, account_id: str) -> SearchForm:
    servers = list(Server.objects.filter(account_id=account_id).order_by("name").values_list("id", "name"))
    credentials = list(Credential.objects.filter(account_id=account_id).order_by("name").values_list("id", "name"))
    return SearchForm(request.GET, servers=servers, credentials=credentials)


def _names(account_id: str) -> dict[str, str]:
    """Give the names of an account's servers and credentials by their ids."""
    names = dict(Server.objects.filter(account_id=account_id).values_list("id", "name"))
    names |= dict(Credential.objects.filter(account_id=account_id).values_list("id", "name"))
    return names


def _control(form: SearchForm, name: str) -> BoundField:
    bound = form[name]
    bound.field.widget.attrs |= {"class": "form-select", "data-submit-on-change": "yes"}
    return bound
