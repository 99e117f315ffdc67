"""Guessing is slow, and said to be so: codes work once, and too many tries are answered with 429.

Counters are allauth's, in the cache that all processes share. Invariant: a code of an authenticator app is refused the second
time in all of the time in which it is good (RFC 6238 s5.2); allauth forgets it after one period of three.
"""

from collections.abc import Callable
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.core import context
from allauth.core.internal.cryptokit import normalize_user_code
from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from allauth.mfa.models import Authenticator
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse

_GOOD_SECONDS = 120
_RETRY_AFTER_SECONDS = 60
_MARK = "postbud_too_many"


class TooManyMiddleware:
    """Gives an answer that says "too many tries" the status that says so too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        response = self._get_response(request)
        if getattr(request, _MARK, False):
            response.status_code = 429
        if response.status_code == 429:
            response.headers.setdefault("Retry-After", str(_RETRY_AFTER_SECONDS))
        return response


def mark_too_many() -> None:
    """Note that whoever asks has tried too often."""
    if context.request is not None:
        setattr(context.request, _MARK, True)


def _once(form: Any, code: str) -> str:
    if form.authenticator.type == Authenticator.Type.TOTP:
        key = f"postbud.totp.{form.user.pk}.{normalize_user_code(code)}"
        if not cache.add(key, "y", timeout=_GOOD_SECONDS):
            raise get_adapter().validation_error("incorrect_code")
    return code


class SecondFactorForm(AuthenticateForm):  # type: ignore[misc]  # allauth has no types
    """The code that signing in asks for."""

    def clean_code(self) -> str:
        """Take a code once."""
        return _once(self, super().clean_code())


class AgainForm(ReauthenticateForm):  # type: ignore[misc]  # allauth has no types
    """The code that a sensitive change asks for."""

    def clean_code(self) -> str:
        """Take a code once."""
        return _once(self, super().clean_code())
