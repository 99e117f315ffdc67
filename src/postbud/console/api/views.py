"""`GET /api/v1/messages/{id}`: the whole history of a message, as long as the log is kept. Reads only."""

import msgspec
from django.http import HttpRequest, HttpResponse

from postbud.console.api.forms import message_state
from postbud.console.api.keyed import keyed
from postbud.console.api.problem import nothing
from postbud.console.mail import queries
from postbud.console.mail.models import DeliveryRow, EventRow
from postbud.console.servers.models import Credential

_DELIVERIES = 10_000
_EVENTS = 50_000


@keyed("GET", "HEAD")
def message(request: HttpRequest, caller: Credential, message_id: str) -> HttpResponse:  # noqa: ARG001  # a view's signature
    """Give a message of the caller's server, by its id or by one of its deliveries'."""
    found = queries.message_of(caller.account_id, message_id)
    if found is None or found.server != caller.server_id:
        return nothing(message_id)
    deliveries = list(DeliveryRow.objects.filter(account=found.account, message=found.id).order_by("id")[:_DELIVERIES])
    events = list(EventRow.objects.filter(account=found.account, message=found.id).order_by("at", "id")[:_EVENTS])
    return HttpResponse(msgspec.json.encode(message_state(found, deliveries, events)), content_type="application/json")
