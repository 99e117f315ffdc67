"""What people do to their own sign-in, in the installation's audit chain: in, passwords, addresses, second factors.

Failed tries are counted by limits and not written here: strangers would write our log. Invariant: no code, password or key.
"""

from typing import Any

from allauth.account import signals as account_signals
from allauth.mfa import signals as factor_signals
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

from postbud.console.accounts import audit
from postbud.console.accounts.models import Person
from postbud.console.transaction import write


def connect() -> None:
    """Listen to sign-ins and changes; called once, when the app is ready."""
    user_logged_in.connect(_signed_in, dispatch_uid="postbud-trail")
    account_signals.password_changed.connect(_password, dispatch_uid="postbud-trail")
    account_signals.password_set.connect(_password, dispatch_uid="postbud-trail")
    account_signals.password_reset.connect(_password, dispatch_uid="postbud-trail")
    account_signals.email_changed.connect(_email, dispatch_uid="postbud-trail")
    factor_signals.authenticator_added.connect(_factor_added, dispatch_uid="postbud-trail")
    factor_signals.authenticator_removed.connect(_factor_removed, dispatch_uid="postbud-trail")
    factor_signals.authenticator_reset.connect(_factor_reset, dispatch_uid="postbud-trail")


def _write(request: HttpRequest | None, user: Person, action: str, **told: Any) -> None:
    meta = request.META if request is not None else {}
    who = audit.Actor("person", user.id, meta.get("REMOTE_ADDR", ""), meta.get("HTTP_USER_AGENT", ""))
    with write():
        audit.record(who, audit.INSTALLATION, action, user.id, **told)


def _signed_in(request: HttpRequest, user: Person, **_: object) -> None:
    _write(request, user, "person.sign_in")


def _password(request: HttpRequest, user: Person, **_: object) -> None:
    _write(request, user, "person.password")


def _email(request: HttpRequest, user: Person, from_email_address: Any, to_email_address: Any, **_: object) -> None:
    former = from_email_address.email if from_email_address is not None else None
    _write(request, user, "person.email", before={"email": former}, after={"email": to_email_address.email})


def _factor_added(request: HttpRequest, user: Person, authenticator: Any, **_: object) -> None:
    _write(request, user, "person.factor_add", after={"kind": str(authenticator.type)})


def _factor_removed(request: HttpRequest, user: Person, authenticator: Any, **_: object) -> None:
    _write(request, user, "person.factor_remove", before={"kind": str(authenticator.type)})


def _factor_reset(request: HttpRequest, user: Person, authenticator: Any, **_: object) -> None:
    _write(request, user, "person.factor_reset", after={"kind": str(authenticator.type)})
