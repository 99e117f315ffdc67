"""The first steps of an account, which its home shows until they are done. Reads; knows which page each step leads to."""

from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from postbud.console.accounts.identity import identity_of
from postbud.console.accounts.models import Account
from postbud.console.mail import figures


@dataclass(frozen=True)
class Step:
    """One thing to do. `next`: it is the one to do now."""

    title: str | Promise
    text: str | Promise
    action: str | Promise
    address: str
    done: bool
    next: bool = False


def first_steps(account: Account) -> list[Step]:
    """Give the steps with what is done of them; nothing when all is."""
    related: Any = account
    server = related.servers.order_by("created_at").first()
    credential = related.credentials.exclude(status="revoked").order_by("created_at").first()
    sent = figures.has_sent(account.id)
    named = identity_of(account.id) is not None
    domain = related.domains.exclude(status="lost").order_by("created_at").first()
    verified = related.domains.filter(status="verified").exists()
    if server and credential and sent and named and verified:
        return []
    connect = reverse("servers:credential_create", args=[account.id, server.id]) if server else ""
    look = reverse("servers:credential", args=[account.id, credential.id]) if credential else ""
    lines = (
        (
            _("Say who you are"),
            _("Name, address and contact of the sender. Recipients see it under marketing mail; an operator looks at it once."),
            _("Fill it in"),
            reverse("accounts:identity", args=[account.id]),
            named,
        ),
        (
            _("Show that your domain is yours"),
            _("Mail comes from a domain of yours, signed in its name. You publish a few records; they are looked for at once."),
            _("Show its records") if domain else _("Add a domain"),
            reverse("domains:domain", args=[account.id, domain.id]) if domain else reverse("domains:create", args=[account.id]),
            verified,
        ),
        (
            _("Create a server"),
            _("One for each purpose: office devices, the shop, a newsletter. Take a sandbox to try things out."),
            _("Create server"),
            reverse("servers:create", args=[account.id]),
            server is not None,
        ),
        (
            _("Connect a device"),
            _("It gets a credential of its own; you get the settings to copy, and a QR code for the way to the printer."),
            _("Connect a device"),
            connect,
            credential is not None,
        ),
        (
            _("Send a message"),
            _("From the device, or with the line that is shown with its credential. Then watch it arrive here."),
            _("Show its settings"),
            look,
            sent,
        ),
    )
    now = next((place for place, line in enumerate(lines) if not line[4]), len(lines))
    return [Step(*line, next=place == now) for place, line in enumerate(lines)]
