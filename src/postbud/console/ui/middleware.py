"""Language and time zone of the viewer: the person's own, else what the browser remembers or asks for.

Does not know pages. Invariant: each request activates both, so nothing of the former request in the thread remains.
"""

import zoneinfo
from collections.abc import Callable
from urllib.parse import unquote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers

LANGUAGE_COOKIE = "language"
ZONE_COOKIE = "zone"
THEME_COOKIE = "theme"
THEMES = ("system", "light", "dark")


class PreferencesMiddleware:
    """Activates the viewer's language and time zone; stands behind the one that knows the person."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request in the viewer's language."""
        language = language_of(request)
        translation.activate(language)
        request.LANGUAGE_CODE = language
        timezone.activate(zone_of(request))
        try:
            response = self._get_response(request)
        finally:
            timezone.deactivate()
        response.headers.setdefault("Content-Language", language)
        patch_vary_headers(response, ("Accept-Language", "Cookie"))
        return response


def language_of(request: HttpRequest) -> str:
    """Choose the language: the person's, the remembered, the one the browser asks for, English."""
    known = dict(settings.LANGUAGES)
    for choice in (getattr(request.user, "language", ""), request.COOKIES.get(LANGUAGE_COOKIE, "")):
        if choice in known:
            return str(choice)
    return translation.get_language_from_request(request)


def zone_of(request: HttpRequest) -> zoneinfo.ZoneInfo:
    """Choose the time zone: the person's, the browser's, UTC."""
    for choice in (getattr(request.user, "time_zone", ""), unquote(request.COOKIES.get(ZONE_COOKIE, ""))):
        if choice:
            try:
                return zoneinfo.ZoneInfo(choice)
            except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
                continue
    return zoneinfo.ZoneInfo("UTC")


def theme_of(request: HttpRequest) -> str:
    """Give the remembered theme."""
    theme = request.COOKIES.get(THEME_COOKIE, "system")
    return theme if theme in THEMES else "system"
