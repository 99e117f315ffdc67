"""Who may call which address: every view of the project declares it with `route`, and a test walks them all.

Owns roles and what each may do. Invariants: whoever is not a member of an account gets the answer that an unknown address
gets, whatever the address; the account is always the one in the address and the rights are the membership's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Literal

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect, render

from postbud.console.accounts.models import Account, Membership, Person, Role
from postbud.console.accounts.second_factor import lacks_factor

Scope = Literal["public", "person", "account", "operator", "key"]


class Permission(Enum):
    """What a member may do in an account."""

    VIEW = "view"  # every page of the account, without contents of messages
    CONTENT = "content"  # contents of messages
    SEND = "send"  # retry, cancel, release, resend; send tests
    SERVERS = "servers"  # servers and their credentials
    DOMAINS = "domains"
    HOOKS = "hooks"
    PEOPLE = "people"  # invite, change roles, remove
    AUDIT = "audit"
    ACCOUNT = "account"  # name, second factors, pausing
    OWN = "own"  # make owners, close the account


_VIEWER = frozenset({Permission.VIEW})
_DEVELOPER = _VIEWER | {Permission.CONTENT, Permission.SEND, Permission.SERVERS, Permission.DOMAINS, Permission.HOOKS}
_ADMIN = _DEVELOPER | {Permission.PEOPLE, Permission.AUDIT, Permission.ACCOUNT}
PERMISSIONS: dict[str, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: _ADMIN,
    Role.DEVELOPER: _DEVELOPER,
    Role.VIEWER: _VIEWER,
}

# addresses of allauth, by name: who may call them
FOREIGN_ROUTES: dict[str, Scope] = {
    "account_login": "public",
    "account_logout": "public",
    "account_confirm_login_code": "public",  # there even when signing in by code is off
    "account_inactive": "public",
    "account_signup": "public",
    "account_reauthenticate": "person",
    "account_email": "person",
    "account_email_verification_sent": "public",
    "account_confirm_email": "public",
    "account_change_password": "person",
    "account_set_password": "person",
    "account_reset_password": "public",
    "account_reset_password_done": "public",
    "account_reset_password_from_key": "public",
    "account_reset_password_from_key_done": "public",
    "mfa_login_webauthn": "public",
    "mfa_authenticate": "public",
    "mfa_trust": "public",
    "mfa_reauthenticate": "person",
    "mfa_reauthenticate_webauthn": "person",
    "mfa_index": "person",
    "mfa_activate_totp": "person",
    "mfa_deactivate_totp": "person",
    "mfa_generate_recovery_codes": "person",
    "mfa_view_recovery_codes": "person",
    "mfa_download_recovery_codes": "person",
    "mfa_list_webauthn": "person",
    "mfa_add_webauthn": "person",
    "mfa_edit_webauthn": "person",
    "mfa_remove_webauthn": "person",
    "usersessions_list": "person",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What a view declared: who may call it, with which permission, by which methods."""

    scope: Scope
    permission: Permission | None
    methods: tuple[str, ...]


View = Callable[..., HttpResponseBase]


def route(
    permission: Permission | None = None, *, scope: Scope = "account", methods: tuple[str, ...] = ("GET", "HEAD")
) -> Callable[[View], View]:
    """Declare who may call a view.

    `account`: members with the permission; the address has `<account_id>`, and `request.account` and `request.membership`
    are set (None for an operator who is no member). `person`: whoever is signed in. `operator`: operators. `public`: all.
    Other methods get 405: what changes something names POST only.

    Raises:
        ValueError: An account's view without a permission; `key`, which is for `api.keyed` to declare.
    """
    if scope == "key":
        raise ValueError("addresses for programs are declared by `api.keyed`")
    if (scope == "account") != (permission is not None):
        raise ValueError("a view of an account, and no other, names a permission")
    access = Access(scope, permission, methods)

    def declare(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            refused = _refuse(request, access, kwargs)
            if refused is not None:
                return refused
            return view(request, *args, **kwargs)

        guarded.postbud_access = access  # type: ignore[attr-defined]  # read by `access_of`
        return guarded

    return declare


def access_of(view: Any) -> Access | None:
    """Give what a view declared; None when it declared nothing."""
    found: Access | None = getattr(view, "postbud_access", None)
    return found


def may(request: HttpRequest, permission: Permission) -> bool:
    """Tell whether whoever asks may do something in the account of the address."""
    membership: Membership | None = getattr(request, "membership", None)
    if membership is None:
        return isinstance(request.user, Person) and request.user.is_operator
    return permission in PERMISSIONS.get(membership.role, frozenset())


def _refuse(request: HttpRequest, access: Access, names: dict[str, Any]) -> HttpResponseBase | None:
    if access.scope == "public":
        return _other_method(request, access)
    person = request.user
    if not isinstance(person, Person):
        return _to_login(request)
    if access.scope == "operator" and not person.is_operator:
        raise Http404
    if access.scope == "account":
        enter_account(request, person, names["account_id"])
        if access.permission is not None and not may(request, access.permission):
            return render(request, "403.html", status=403)
        if request.account.mfa_required and lacks_factor(person):  # type: ignore[attr-defined]  # set by enter_account
            return redirect("mfa_index")
    return _other_method(request, access)


def enter_account(request: HttpRequest, person: Person, account_id: str) -> None:
    """Set `request.account` and `request.membership`.

    Raises:
        Http404: There is no such account, or it is nothing to this person.
    """
    membership = Membership.objects.select_related("account", "account__plan").filter(account=account_id, person=person).first()
    if membership is not None:
        account = membership.account
    elif person.is_operator:
        account = _account_for_operator(account_id)
    else:
        raise Http404
    request.account = account  # type: ignore[attr-defined]  # Django's way to hand things on
    request.membership = membership  # type: ignore[attr-defined]  # as above


def _account_for_operator(account_id: str) -> Account:
    account = Account.objects.select_related("plan").filter(id=account_id).first()
    if account is None:
        raise Http404
    return account


def _other_method(request: HttpRequest, access: Access) -> HttpResponse | None:
    return None if request.method in access.methods else HttpResponseNotAllowed(access.methods)


def _to_login(request: HttpRequest) -> HttpResponse:
    if request.headers.get("HX-Request") == "true":
        response = HttpResponse(status=401)
        response["HX-Refresh"] = "true"
        return response
    return redirect_to_login(request.get_full_path())
