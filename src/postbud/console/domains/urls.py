"""Addresses of an account's domains."""

from django.urls import path

from postbud.console.domains import views

app_name = "domains"
_DOMAIN = "a/<str:account_id>/domains/<str:domain_id>/"
urlpatterns = [
    path("a/<str:account_id>/domains/", views.domains, name="domains"),
    path("a/<str:account_id>/domains/new/", views.create, name="create"),
    path(_DOMAIN, views.domain, name="domain"),
    path(f"{_DOMAIN}check/", views.check, name="check"),
    path(f"{_DOMAIN}zone/", views.zone, name="zone"),
    path(f"{_DOMAIN}rotate/", views.rotate, name="rotate"),
    path(f"{_DOMAIN}remove/", views.remove, name="remove"),
]
