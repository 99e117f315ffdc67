"""Webhooks: URLs that are told of events."""

from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from ninja import Query, Router, Status

from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Key, actor_of, caller_of, now
from postbud.console.api.paging import NAYS, Asked, page_by_id
from postbud.console.api.problem import ApiProblem, FieldError, nothing
from postbud.console.api.schemas import Page, RotateIn, WebhookIn, WebhookOut, WebhookSecretOut
from postbud.console.hooks import services
from postbud.console.hooks.models import Endpoint
from postbud.console.hooks.services import EndpointRefused
from postbud.console.servers.models import Server

router = Router(tags=["webhooks"])
READ, WRITE = Key(Permission.VIEW), Key(Permission.HOOKS)


@router.get("/webhooks", auth=READ, response={200: Page[WebhookOut], **NAYS}, summary="List webhooks")
def list_webhooks(request: HttpRequest, asked: Query[Asked]) -> Any:
    """Give the account's webhooks, newest first."""
    return page_by_id(Endpoint.objects.filter(account=caller_of(request).account.id), asked, _shown)


@router.post("/webhooks", auth=WRITE, response={201: WebhookSecretOut, **NAYS}, summary="Make a webhook")
def create_webhook(request: HttpRequest, payload: WebhookIn) -> Any:
    """Make a webhook; its secret is in this answer and nowhere else."""
    account = caller_of(request).account.id
    server = _server(account, payload.server)
    try:
        made, secret = services.create_endpoint(
            actor_of(request), account, payload.url, payload.kinds, now(), server=server, description=payload.description
        )
    except EndpointRefused as refused:
        raise _refused(refused) from refused
    return Status(201, _shown(made) | {"secret": secret})


@router.get("/webhooks/{webhook_id}", auth=READ, response={200: WebhookOut, **NAYS}, summary="A webhook")
def read_webhook(request: HttpRequest, webhook_id: str) -> Any:
    """Give a webhook."""
    return _shown(_webhook(request, webhook_id))


@router.put("/webhooks/{webhook_id}", auth=WRITE, response={200: WebhookOut, **NAYS}, summary="Replace a webhook")
def replace_webhook(request: HttpRequest, webhook_id: str, payload: WebhookIn) -> Any:
    """Make it what is said; its secret stays."""
    found = _webhook(request, webhook_id)
    server = _server(found.account, payload.server)
    try:
        changed = services.update_endpoint(
            actor_of(request),
            found.account,
            found.id,
            payload.url,
            payload.kinds,
            server=server,
            description=payload.description,
        )
    except EndpointRefused as refused:
        raise _refused(refused) from refused
    return _shown(changed)


@router.delete("/webhooks/{webhook_id}", auth=WRITE, response={204: None, **NAYS}, summary="Delete a webhook")
def delete_webhook(request: HttpRequest, webhook_id: str) -> Any:
    """Forget it with its posts; what waits is not sent."""
    found = _webhook(request, webhook_id)
    services.delete_endpoint(actor_of(request), found.account, found.id)
    return Status(204, None)


@router.post("/webhooks/{webhook_id}/test", auth=WRITE, response={202: WebhookOut, **NAYS}, summary="Send a test")
def test_webhook(request: HttpRequest, webhook_id: str) -> Any:
    """Post a test to it."""
    found = _webhook(request, webhook_id)
    services.send_test(actor_of(request), found.account, found.id, now())
    return Status(202, _shown(found))


@router.post("/webhooks/{webhook_id}/pause", auth=WRITE, response={200: WebhookOut, **NAYS}, summary="Pause a webhook")
def pause_webhook(request: HttpRequest, webhook_id: str) -> Any:
    """Tell it nothing for now; what happens meanwhile is not told later."""
    found = _webhook(request, webhook_id)
    return _shown(services.set_active(actor_of(request), found.account, found.id, active=False))


@router.post("/webhooks/{webhook_id}/resume", auth=WRITE, response={200: WebhookOut, **NAYS}, summary="Resume a webhook")
def resume_webhook(request: HttpRequest, webhook_id: str) -> Any:
    """Tell it again."""
    found = _webhook(request, webhook_id)
    return _shown(services.set_active(actor_of(request), found.account, found.id, active=True))


@router.post("/webhooks/{webhook_id}/rotate", auth=WRITE, response={200: WebhookSecretOut, **NAYS}, summary="Make a new secret")
def rotate_webhook(request: HttpRequest, webhook_id: str, payload: RotateIn) -> Any:
    """Make a new secret; both sign for the overlap."""
    found = _webhook(request, webhook_id)
    overlap = timedelta(seconds=payload.overlap_seconds)
    secret = services.rotate_secret(actor_of(request), found.account, found.id, now(), overlap)
    return _shown(found) | {"secret": secret}


def _webhook(request: HttpRequest, webhook_id: str) -> Endpoint:
    good = webhook_id.isascii() and webhook_id.replace("_", "").isalnum()
    found = Endpoint.objects.filter(account=caller_of(request).account.id, id=webhook_id).first() if good else None
    if found is None:
        raise nothing("there is no such webhook")
    return found


def _server(account: str, server: str | None) -> str:
    if not server:
        return ""
    if "\x00" in server or not Server.objects.filter(account=account, id=server).exists():
        raise ApiProblem(422, "refused", "It cannot be as asked", "there is no such server", [FieldError("server", "is none")])
    return server


def _refused(refused: EndpointRefused) -> ApiProblem:
    return ApiProblem(422, "refused", "It cannot be as asked", str(refused), [FieldError(refused.field, str(refused))])


def _shown(row: Endpoint) -> dict[str, Any]:
    names = [name for name in WebhookOut.model_fields if name not in {"server", "kinds"}]
    return {name: getattr(row, name) for name in names} | {"server": row.server or None, "kinds": list(row.kinds)}
