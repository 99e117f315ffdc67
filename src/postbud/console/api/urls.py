"""Addresses of the management API, of its description, and of the page where its keys are made."""

from django.urls import include, path

from postbud.console.api import views
from postbud.console.api.application import api, declared

app_name = "api"
_patterns, _app, _namespace = api().urls
urlpatterns = [
    path("a/<str:account_id>/api-keys/", views.keys, name="keys"),
    path("a/<str:account_id>/api-keys/<str:key_id>/revoke/", views.revoke, name="key_revoke"),
    path("api/", views.reference, name="reference"),
    path("api/v1/", include(declared(_patterns))),
    path("api/v1/<path:rest>", views.nothing_there, name="nothing"),
]
