"""Servers and their credentials."""

from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from ninja import Query, Router, Status

from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Key, actor_of, caller_of
from postbud.console.api.paging import NAYS, Asked, page_by_id
from postbud.console.api.problem import nothing
from postbud.console.api.schemas import (
    CredentialChange,
    CredentialIn,
    CredentialOut,
    Page,
    RotateIn,
    SecretOut,
    ServerChange,
    ServerIn,
    ServerOut,
)
from postbud.console.servers import services
from postbud.console.servers.models import Credential, Server

router = Router(tags=["servers"])
READ, WRITE = Key(Permission.VIEW), Key(Permission.SERVERS)


@router.get("/servers", auth=READ, response={200: Page[ServerOut], **NAYS}, summary="List servers")
def list_servers(request: HttpRequest, asked: Query[Asked]) -> Any:
    """Give the account's servers, newest first."""
    return page_by_id(Server.objects.filter(account=caller_of(request).account.id), asked, lambda row: row)


@router.post("/servers", auth=WRITE, response={201: ServerOut, **NAYS}, summary="Make a server")
def create_server(request: HttpRequest, payload: ServerIn) -> Any:
    """Make a server; its kind stays as it is."""
    return Status(201, services.create_server(actor_of(request), caller_of(request).account.id, payload.name, payload.kind))


@router.get("/servers/{server_id}", auth=READ, response={200: ServerOut, **NAYS}, summary="A server")
def read_server(request: HttpRequest, server_id: str) -> Any:
    """Give a server."""
    return _server(request, server_id)


@router.patch("/servers/{server_id}", auth=WRITE, response={200: ServerOut, **NAYS}, summary="Change a server")
def change_server(request: HttpRequest, server_id: str, payload: ServerChange) -> Any:
    """Change what is named; what is left out stays."""
    found = _server(request, server_id)
    changes = payload.dict(exclude_unset=True)
    kept = {name: value for name, value in changes.items() if value is not None or name == "hourly_cap"}
    return services.update_server(actor_of(request), found.account_id, found.id, **kept)


@router.post("/servers/{server_id}/pause", auth=WRITE, response={200: ServerOut, **NAYS}, summary="Pause a server")
def pause_server(request: HttpRequest, server_id: str) -> Any:
    """Have devices hear "try again later" and queued mail wait."""
    found = _server(request, server_id)
    return services.pause_server(actor_of(request), found.account_id, found.id)


@router.post("/servers/{server_id}/resume", auth=WRITE, response={200: ServerOut, **NAYS}, summary="End a server's pause")
def resume_server(request: HttpRequest, server_id: str) -> Any:
    """Take mail again."""
    found = _server(request, server_id)
    return services.resume_server(actor_of(request), found.account_id, found.id)


@router.get(
    "/servers/{server_id}/credentials", auth=READ, response={200: Page[CredentialOut], **NAYS}, summary="List credentials"
)
def list_credentials(request: HttpRequest, server_id: str, asked: Query[Asked]) -> Any:
    """Give a server's credentials, newest first, those that were revoked too."""
    found = _server(request, server_id)
    rows = Credential.objects.filter(account=found.account_id, server=found.id)
    return page_by_id(rows, asked, _shown)


@router.post("/servers/{server_id}/credentials", auth=WRITE, response={201: SecretOut, **NAYS}, summary="Make a credential")
def create_credential(request: HttpRequest, server_id: str, payload: CredentialIn) -> Any:
    """Make a credential; its secret is in this answer and nowhere else."""
    found = _server(request, server_id)
    made, secret = services.create_credential(actor_of(request), found.account_id, found.id, **payload.dict())
    return Status(201, _shown(made) | {"secret": secret or None})


@router.get("/credentials/{credential_id}", auth=READ, response={200: CredentialOut, **NAYS}, summary="A credential")
def read_credential(request: HttpRequest, credential_id: str) -> Any:
    """Give a credential."""
    return _shown(_credential(request, credential_id))


@router.patch("/credentials/{credential_id}", auth=WRITE, response={200: CredentialOut, **NAYS}, summary="Change a credential")
def change_credential(request: HttpRequest, credential_id: str, payload: CredentialChange) -> Any:
    """Change what is named; what is left out stays."""
    found = _credential(request, credential_id)
    changes = payload.dict(exclude_unset=True)
    kept = {name: value for name, value in changes.items() if value is not None or name == "hourly_cap"}
    return _shown(services.update_credential(actor_of(request), found.account_id, found.id, **kept))


@router.post("/credentials/{credential_id}/rotate", auth=WRITE, response={200: SecretOut, **NAYS}, summary="Make a new secret")
def rotate_credential(request: HttpRequest, credential_id: str, payload: RotateIn) -> Any:
    """Make a new secret; the former one stays good for the overlap."""
    found = _credential(request, credential_id)
    overlap = timedelta(seconds=payload.overlap_seconds)
    changed, secret = services.rotate_credential(actor_of(request), found.account_id, found.id, overlap)
    return _shown(changed) | {"secret": secret or None}


@router.post(
    "/credentials/{credential_id}/revoke", auth=WRITE, response={200: CredentialOut, **NAYS}, summary="Revoke a credential"
)
def revoke_credential(request: HttpRequest, credential_id: str) -> Any:
    """Refuse it everywhere within a second; this cannot be undone."""
    found = _credential(request, credential_id)
    return _shown(services.revoke_credential(actor_of(request), found.account_id, found.id))


def _server(request: HttpRequest, server_id: str) -> Server:
    found = Server.objects.filter(account=caller_of(request).account.id, id=server_id).first() if _is_id(server_id) else None
    if found is None:
        raise nothing("there is no such server")
    return found


def _credential(request: HttpRequest, credential_id: str) -> Credential:
    rows = Credential.objects.filter(account=caller_of(request).account.id)
    found = rows.filter(id=credential_id).first() if _is_id(credential_id) else None
    if found is None:
        raise nothing("there is no such credential")
    return found


def _is_id(text: str) -> bool:
    return text.isascii() and text.replace("_", "").isalnum()


def _shown(row: Credential) -> dict[str, Any]:
    names = CredentialOut.model_fields
    return {name: getattr(row, name) for name in names if name != "server"} | {"server": row.server_id}
