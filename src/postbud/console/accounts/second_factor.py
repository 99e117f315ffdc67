"""Who must have a second factor, and the way to the page that sets one up.

Does not know how factors work (allauth does). Invariant: outside of a demo an operator without one reaches nothing but the
pages on which to set it up; an account may ask the same of its members (`permissions` asks for it there).
"""

from collections.abc import Callable

from allauth.mfa.models import Authenticator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import Resolver404, resolve

from postbud.console.accounts.models import Person
from postbud.console.configuration import current

_OPEN = frozenset({"account_logout", "account_login", "account_reauthenticate", "language"})
_OPEN_PREFIX = "mfa_"


class SecondFactorMiddleware:
    """Sends an operator without a second factor to the page that sets one up."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        person = request.user
        if isinstance(person, Person) and must_have_factor(person) and not _leads_to_factor(request) and lacks_factor(person):
            return redirect("mfa_index")
        return self._get_response(request)


def must_have_factor(person: Person) -> bool:
    """Tell whether a person may not go on without a second factor, wherever they go."""
    return person.is_operator and not current().demo


def lacks_factor(person: Person) -> bool:
    """Tell whether a person has neither an authenticator app nor a passkey."""
    wanted = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return not Authenticator.objects.filter(user_id=person.pk, type__in=wanted).exists()


def _leads_to_factor(request: HttpRequest) -> bool:
    try:
        name = resolve(request.path_info).url_name or ""
    except Resolver404:
        return True  # answered with 404
    return name in _OPEN or name.startswith(_OPEN_PREFIX)
