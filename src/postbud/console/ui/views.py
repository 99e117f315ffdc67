"""The choice of language, kept in a cookie and, for who is signed in, with the person. Writes nothing itself."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme

from postbud.console.accounts import people
from postbud.console.accounts.audit import actor_of
from postbud.console.accounts.models import Person
from postbud.console.accounts.permissions import route
from postbud.console.ui.middleware import LANGUAGE_COOKIE

YEAR_SECONDS = 365 * 24 * 3600


@route(scope="public", methods=("POST",))
def language(request: HttpRequest) -> HttpResponse:
    """Remember a language and go back to where the viewer was."""
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, allowed_hosts=None):
        target = "/"
    chosen = request.POST.get("language", "")
    answer = HttpResponseRedirect(target)
    if chosen in dict(settings.LANGUAGES):
        if isinstance(request.user, Person):
            people.update_profile(actor_of(request), request.user.id, language=chosen)
        answer.set_cookie(
            LANGUAGE_COOKIE, chosen, max_age=YEAR_SECONDS, samesite="Lax", secure=request.is_secure(), httponly=True
        )
    return answer
