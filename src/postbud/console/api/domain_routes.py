"""Sending domains: the records to publish and what was seen of them."""

from typing import Any

from django.http import HttpRequest
from ninja import Query, Router, Status

from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Key, actor_of, caller_of, now
from postbud.console.api.paging import NAYS, Asked, page_by_id
from postbud.console.api.problem import nothing
from postbud.console.api.schemas import DomainIn, DomainOut, Page
from postbud.console.domains import checking, services
from postbud.console.domains.models import Domain

router = Router(tags=["domains"])
READ, WRITE = Key(Permission.VIEW), Key(Permission.DOMAINS)


@router.get("/domains", auth=READ, response={200: Page[DomainOut], **NAYS}, summary="List domains")
def list_domains(request: HttpRequest, asked: Query[Asked]) -> Any:
    """Give the account's domains, newest first."""
    return page_by_id(Domain.objects.filter(account=caller_of(request).account.id), asked, _shown)


@router.post("/domains", auth=WRITE, response={201: DomainOut, **NAYS}, summary="Add a domain")
def create_domain(request: HttpRequest, payload: DomainIn) -> Any:
    """Add a domain; the answer has the records to publish."""
    return Status(201, _shown(services.add_domain(actor_of(request), caller_of(request).account.id, payload.name)))


@router.get("/domains/{domain_id}", auth=READ, response={200: DomainOut, **NAYS}, summary="A domain")
def read_domain(request: HttpRequest, domain_id: str) -> Any:
    """Give a domain as it was seen last."""
    return _shown(_domain(request, domain_id))


@router.delete("/domains/{domain_id}", auth=WRITE, response={204: None, **NAYS}, summary="Remove a domain")
def remove_domain(request: HttpRequest, domain_id: str) -> Any:
    """Refuse mail from it within a second; its keys are gone for good."""
    found = _domain(request, domain_id)
    services.remove_domain(actor_of(request), found.account_id, found.id)
    return Status(204, None)


@router.post("/domains/{domain_id}/check", auth=WRITE, response={200: DomainOut, **NAYS}, summary="Look for its records now")
def check_domain(request: HttpRequest, domain_id: str) -> Any:
    """Ask the domain's own name servers, and give what was seen."""
    found = _domain(request, domain_id)
    return _shown(checking.check(found.account_id, found.id, now()))


@router.post("/domains/{domain_id}/rotate-keys", auth=WRITE, response={200: DomainOut, **NAYS}, summary="Make new keys")
def rotate_keys(request: HttpRequest, domain_id: str) -> Any:
    """Make new keys, which sign once their records are seen."""
    found = _domain(request, domain_id)
    return _shown(services.rotate_keys(actor_of(request), found.account_id, found.id))


def _domain(request: HttpRequest, domain_id: str) -> Domain:
    good = domain_id.isascii() and domain_id.replace("_", "").isalnum()
    found = Domain.objects.filter(account=caller_of(request).account.id, id=domain_id).first() if good else None
    if found is None:
        raise nothing("there is no such domain")
    return found


def _shown(domain: Domain) -> dict[str, Any]:
    sight = checking.sight_of(domain)
    states = {seen.name: seen.state for seen in sight.records} if sight is not None else {}
    otherwise = "unknown" if sight is not None else "unchecked"
    return {
        "id": domain.id, "name": domain.name, "status": domain.status, "created_at": domain.created_at,
        "verified_at": domain.verified_at, "checked_at": domain.checked_at, "failing_since": domain.failing_since,
        "dmarc_policy": sight.dmarc.policy if sight is not None else "",
        "records": [
            {
                "purpose": one.purpose.value, "name": one.name, "type": one.type, "value": one.value, "needed": one.needed,
                "state": states.get(one.name, otherwise),
            }
            for one in checking.records_of(domain)
        ],
    }  # fmt: skip
