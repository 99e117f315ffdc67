"""Addresses that programs call with an API key: who calls is the key's credential, and a key sees its own server only.

Owns the check of the key; a session's cookie counts for nothing here, so there is no CSRF either. Invariant: a key in the
address is refused, whatever else the request holds (input I10).
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from postbud.console.accounts.permissions import Access, View
from postbud.console.api.problem import no_key, problem
from postbud.console.servers.models import Credential
from postbud.console.servers.secrets import credential_of_key
from postbud.model.api_key import PREFIX

_LONGEST_KEY = 200


def keyed(*methods: str) -> Callable[[Callable[..., HttpResponse]], View]:
    """Declare an address of the API; the view's second argument is the caller's credential."""

    def declare(view: Callable[..., HttpResponse]) -> View:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if PREFIX in request.META.get("QUERY_STRING", ""):
                told = "change the key: addresses end up in logs. Keys go into the Authorization header."
                return problem(400, "key_in_query", "An API key stands in the address", told)
            caller = _caller(request)
            if caller is None:
                return no_key()
            if request.method not in methods:
                response = problem(
                    405, "method_not_allowed", "The method is not allowed here", f"allowed: {', '.join(methods)}"
                )
                response.headers["Allow"] = ", ".join(methods)
                return response
            return view(request, caller, *args, **kwargs)

        guarded.postbud_access = Access("key", None, methods)  # type: ignore[attr-defined]  # read by `access_of`
        return guarded

    return declare


def _caller(request: HttpRequest) -> Credential | None:
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(text) <= _LONGEST_KEY:
        return None
    return credential_of_key(text.strip())
