"""Handing a credential over: the page with its settings and secret, the test that is sent with it, and how the test fares.

Keeps no secret: the page that shows it sends it back for the test. Invariant: a test goes from a sender that the credential may
use to the viewer's own address, and its progress is read for that account and credential alone.
"""

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from postbud.console.accounts.models import Account, Person
from postbud.console.configuration import current
from postbud.console.domains.models import Domain, DomainStatus
from postbud.console.mail.models import DeliveryRow
from postbud.console.servers.devices import IMPLICIT, profile
from postbud.console.servers.handover import Line, Relay, api_snippets, qr_code, smtp_lines, smtp_snippets
from postbud.console.servers.models import Credential, CredentialKind
from postbud.console.servers.trial import Trial, send_trial
from postbud.console.ui.templatetags.ui import url_if

MAX_LOOKS = 90  # a look a second
_PROGRAMS = frozenset({"pc", "server", "program", "shop", "newsletter"})
_NO_DOMAIN = "example.com"


def page(request: HttpRequest, account: Account, credential: Credential, secret: str, *, rotated: bool) -> HttpResponse:
    """Give the page that shows a secret, once, with everything that it is for."""
    person = cast("Person", request.user)
    kind = profile(credential.icon)
    sender, recipient = sender_of(account, credential), person.email
    relay = _relay()
    lines = lines_of(account, credential, secret)
    if credential.kind == CredentialKind.API:
        snippets = api_snippets(relay, key=secret, sender=sender, recipient=recipient)
    elif credential.kind == CredentialKind.SMTP and kind.name in _PROGRAMS:
        username = credential.username or ""
        snippets = smtp_snippets(relay, username=username, secret=secret, sender=sender, recipient=recipient)
    else:
        snippets = []
    values = {
        "server": credential.server,
        "credential": credential,
        "profile": kind,
        "relay": relay,
        "implicit": kind.tls == IMPLICIT,
        "both_ways": credential.kind != CredentialKind.API,
        "secret": secret,
        "lines": [line for line in lines if not line.secret],
        "snippets": snippets,
        "qr": qr_code(lines) if credential.kind != CredentialKind.API else "",
        "can_try": credential.kind == CredentialKind.SMTP,
        "recipient": recipient,
        "rotated": rotated,
    }
    return render(request, "servers/handover.html", values)


def lines_of(account: Account, credential: Credential, secret: str) -> list[Line]:
    """Give a credential's settings; without its secret the line for it stands empty."""
    relay, sender = _relay(), sender_of(account, credential)
    if credential.kind == CredentialKind.API:
        return [Line(_("Address (URL)"), relay.api_url.rstrip("/") + "/v1/messages"), Line(_("API key"), secret, secret=True)]
    implicit = profile(credential.icon).tls == IMPLICIT
    lines = smtp_lines(relay, implicit=implicit, username=credential.username or "", secret=secret, sender=sender)
    if credential.kind == CredentialKind.NETWORK:
        return [*lines[:3], Line(_("Signing in"), _("none: known by its address")), lines[-1]]
    return lines


def sender_of(account: Account, credential: Credential) -> str:
    """Give a sender that a credential may use: the first that it is bound to, else one at the account's domain."""
    allowed = str(credential.allow_from[0]) if credential.allow_from else ""
    if allowed and not allowed.startswith("@"):
        return allowed
    domains = Domain.objects.filter(account=account, status=DomainStatus.VERIFIED).order_by("created_at")
    domain = allowed[1:] or domains.values_list("name", flat=True).first() or _NO_DOMAIN
    return f"{credential.icon if credential.icon != 'api' else 'app'}@{domain}"


def send(request: HttpRequest, account: Account, credential: Credential, secret: str) -> HttpResponse:
    """Send a test and give the fragment that watches it."""
    person = cast("Person", request.user)
    made = send_trial(
        relay=current().system_smtp,
        username=credential.username or "",
        secret=secret,
        sender=sender_of(account, credential),
        recipient=person.email,
        subject=_("A test of %s") % credential.name,
        text=_("This message was sent with the credential “%(name)s”. It works.") % {"name": credential.name},
    )
    return _fragment(request, account, credential, made, looks=0)


def watch(request: HttpRequest, account: Account, credential: Credential, message_id: str) -> HttpResponse:
    """Give the fragment that shows where a test stands."""
    looks = request.GET.get("n", "0")
    return _fragment(
        request, account, credential, Trial(message=message_id), looks=int(looks) if looks.isdecimal() and len(looks) < 4 else 0
    )


def _fragment(request: HttpRequest, account: Account, credential: Credential, made: Trial, *, looks: int) -> HttpResponse:
    delivery = None
    if made.message:
        delivery = DeliveryRow.objects.filter(account=account.id, message=made.message, credential=credential.id).first()
    waiting = bool(made.message) and made.reached and (delivery is None or not delivery.is_final)
    again = ""
    if waiting and looks < MAX_LOOKS:
        again = reverse("servers:trial_state", args=[account.id, credential.id, made.message]) + f"?n={looks + 1}"
    values = {
        "trial": made,
        "message": made.message,
        "delivery": delivery,
        "again": again,
        "gave_up": waiting and not again,
        "link": url_if("mail:message", account.id, made.message) if delivery is not None else "",
    }
    return render(request, "servers/trial.html", values)


def _relay() -> Relay:
    told = current()
    return Relay(told.submission_host, told.submission_port, told.submission_tls_port, told.api_url)
