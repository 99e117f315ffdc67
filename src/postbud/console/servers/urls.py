"""Addresses of an account's servers and credentials."""

from django.urls import path

from postbud.console.servers import views

app_name = "servers"
_SERVER = "a/<str:account_id>/servers/<str:server_id>/"
_CREDENTIAL = "a/<str:account_id>/credentials/<str:credential_id>/"
urlpatterns = [
    path("a/<str:account_id>/servers/", views.servers, name="servers"),
    path("a/<str:account_id>/servers/new/", views.create, name="create"),
    path(_SERVER, views.server, name="server"),
    path(f"{_SERVER}settings/", views.edit, name="edit"),
    path(f"{_SERVER}pause/", views.pause, name="pause"),
    path(f"{_SERVER}resume/", views.resume, name="resume"),
    path(f"{_SERVER}credentials/new/", views.credential_create, name="credential_create"),
    path(_CREDENTIAL, views.credential, name="credential"),
    path(f"{_CREDENTIAL}rotate/", views.rotate, name="rotate"),
    path(f"{_CREDENTIAL}revoke/", views.revoke, name="revoke"),
    path(f"{_CREDENTIAL}test/", views.trial, name="trial"),
    path(f"{_CREDENTIAL}test/<str:message_id>/", views.trial_state, name="trial_state"),
]
