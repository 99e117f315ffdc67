"""What every answer and request passes: security headers, and who a request comes from behind a trusted proxy.

Invariants: no page runs anything that is not a file of ours (strict CSP, no inline); forwarded fields of anybody but a
configured proxy are not read. CSP Level 3, RFC 6797 (HSTS).
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers

from postbud.console.api.problem import problem
from postbud.console.configuration import current

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HSTS = "max-age=31536000; includeSubDomains"
_FORWARDED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_FORWARDED",
)

Answer = Callable[[HttpRequest], HttpResponse]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HeadersMiddleware:
    """Adds the security headers; a view may give its own CSP (a sandboxed preview), and nothing else."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        response = self._get_response(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        if current().secure:
            response.headers["Strict-Transport-Security"] = _HSTS
        if not response.headers.get("Cache-Control"):
            add_never_cache_headers(response)
            response.headers["Cache-Control"] = "no-store"
        return response


class ProxyMiddleware:
    """Takes address and scheme from X-Forwarded-For and -Proto of a trusted proxy, and removes such fields of others."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        forwarded = {name: request.META.pop(name, "") for name in _FORWARDED}
        trusted = _networks(tuple(current().trusted_proxies))
        if _within(request.META.get("REMOTE_ADDR", ""), trusted):
            request.META["REMOTE_ADDR"] = _client(forwarded["HTTP_X_FORWARDED_FOR"], trusted) or request.META["REMOTE_ADDR"]
            if forwarded["HTTP_X_FORWARDED_PROTO"].strip().lower() == "https":
                request.META["wsgi.url_scheme"] = "https"
                getattr(request, "environ", {})["wsgi.url_scheme"] = "https"
        return self._get_response(request)


class NulMiddleware:
    """Refuses NUL in addresses: no page takes it, and a database may not (PostgreSQL's text cannot hold it)."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        for_programs = request.path_info.startswith("/api/v1/")
        if "\x00" in request.path_info:
            if for_programs:
                return problem(404, "not_found", "There is no such thing", "an address has no NUL")
            raise Http404
        if "%00" in request.META.get("QUERY_STRING", ""):
            if for_programs:
                return problem(400, "bad_request", "The request is not valid", "a query has no NUL")
            raise BadRequest("NUL in a query string")
        return self._get_response(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Answer a form that did not come from our own pages."""
    return render(request, "403_csrf.html", status=403)


def _client(forwarded_for: str, trusted: tuple[Network, ...]) -> str:
    """Give the nearest address that no trusted proxy has."""
    for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return ""
        if not _within(hop, trusted):
            return hop
    return ""


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


@lru_cache(maxsize=8)
def _networks(names: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(name, strict=False) for name in names)
