"""Every address of the pages: the apps' own, below what they name, and those of signing in.

Each app's `urls` names whole paths, beginning with `a/<account_id>/` where it is about one account. Every view says who may
call it (`accounts.permissions.route`); those of allauth are listed there by name.
"""

from importlib.util import find_spec

from allauth.account.views import password_reset_from_key
from django.urls import URLPattern, URLResolver, include, path, re_path

APPS = ("ui", "accounts", "billing", "servers", "domains", "mail", "link", "hooks", "jobs", "api", "operator")

urlpatterns: list[URLPattern | URLResolver] = [
    re_path(  # people's ids have an underscore, which allauth's own pattern does not take
        r"^me/password/reset/key/(?P<uidb36>[0-9A-Za-z_]+)-(?P<key>.+)/$",
        password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    path("me/", include("allauth.account.urls")),
    path("me/mfa/", include("allauth.mfa.urls")),
    path("me/sessions/", include("allauth.usersessions.urls")),
]
urlpatterns += [
    path("", include(f"postbud.console.{app}.urls")) for app in APPS if find_spec(f"postbud.console.{app}.urls") is not None
]
