"""How long somebody stays signed in, and when they were last seen.

Sessions are rows; ending one ends it at the next request. Invariants: nobody stays signed in longer than `LONGEST` (absolute)
or `IDLE` without a request; being seen is written down at most every few minutes, not with every page (ASVS 7.3).
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from allauth.usersessions.models import UserSession
from django.contrib.auth import logout
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse

from postbud.console.accounts.models import CacheEntry
from postbud.console.transaction import write

IDLE_SECONDS = 12 * 3600
IDLE_REMEMBERED_SECONDS = 7 * 24 * 3600
LONGEST_SECONDS = 14 * 24 * 3600
NOTED_EVERY_SECONDS = 300
_AT_ONCE = 1000
_BEGAN, _SEEN = "postbud_began", "postbud_seen"


def forget_sessions(now: datetime) -> int:
    """Forget sessions that ended, and what was noted of them; give how many. A thousand at a time: call again."""
    ended = list(Session.objects.filter(expire_date__lte=now).values_list("session_key", flat=True)[:_AT_ONCE])
    with write():
        Session.objects.filter(session_key__in=ended).delete()
        UserSession.objects.filter(session_key__in=ended).delete()
        UserSession.objects.filter(last_seen_at__lte=now - timedelta(seconds=LONGEST_SECONDS)).delete()
        CacheEntry.objects.filter(expires__lte=now).delete()
    return len(ended)


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
