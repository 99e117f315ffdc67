"""Which invitation a browser came with: the token waits in the session until its owner has signed in or up."""

import hashlib

from django.http import HttpRequest
from django.utils import timezone

from postbud.console.accounts.models import Invitation

_WAITING = "postbud_invitation"


def hash_token(token: str) -> str:
    """Give what is kept of an invitation's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def find(token: str) -> Invitation | None:
    """Give the invitation of a token, while it may be accepted."""
    return (
        Invitation.objects.select_related("account")
        .filter(token_hash=hash_token(token), accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now())
        .first()
    )


def remember(request: HttpRequest, token: str) -> None:
    """Keep a token for after signing in."""
    request.session[_WAITING] = token


def forget(request: HttpRequest) -> None:
    """Drop the remembered token."""
    request.session.pop(_WAITING, None)


def token_of(request: HttpRequest) -> str:
    """Give the remembered token, or nothing."""
    return str(request.session.get(_WAITING, ""))


def invitation_of(request: HttpRequest) -> Invitation | None:
    """Give the invitation that a browser came with, while it may be accepted."""
    token = token_of(request)
    return find(token) if token else None
