"""How long somebody stays signed in, and when they were last seen.

Sessions are rows; ending one ends it at the next request. Invariants: nobody stays signed in longer than `LONGEST` (absolute)
or `IDLE` without a request; being seen is written down at most every few minutes, not with every page (ASVS 7.3).
"""

import time
from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse

IDLE_SECONDS = 12 * 3600
IDLE_REMEMBERED_SECONDS = 7 * 24 * 3600
LONGEST_SECONDS = 14 * 24 * 3600
NOTED_EVERY_SECONDS = 300
_BEGAN, _SEEN = "postbud_began", "postbud_seen"


class SessionLimitsMiddleware:
    """Ends sessions that are too old or idle, and notes that the others live."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        if request.user.is_authenticated:
            self._look(request, int(time.time()))
        return self._get_response(request)

    def _look(self, request: HttpRequest, now: int) -> None:
        session = request.session
        began, seen = session.get(_BEGAN, now), session.get(_SEEN, 0)
        idle = IDLE_SECONDS if session.get_expire_at_browser_close() else IDLE_REMEMBERED_SECONDS
        if now - began > LONGEST_SECONDS or (seen and now - seen > idle):
            logout(request)
            return
        if now - seen >= NOTED_EVERY_SECONDS:
            session[_BEGAN], session[_SEEN] = began, now
            UserSession.objects.create_from_request(request)
