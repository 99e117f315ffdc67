"""Addresses of an account's webhooks."""

from django.urls import path

from postbud.console.hooks import views

app_name = "hooks"
_ENDPOINT = "a/<str:account_id>/webhooks/<str:endpoint_id>/"
urlpatterns = [
    path("a/<str:account_id>/webhooks/", views.endpoints, name="endpoints"),
    path("a/<str:account_id>/webhooks/new/", views.create, name="create"),
    path(_ENDPOINT, views.endpoint, name="endpoint"),
    path(f"{_ENDPOINT}settings/", views.edit, name="edit"),
    path(f"{_ENDPOINT}pause/", views.pause, name="pause"),
    path(f"{_ENDPOINT}resume/", views.resume, name="resume"),
    path(f"{_ENDPOINT}secret/", views.rotate, name="rotate"),
    path(f"{_ENDPOINT}delete/", views.delete, name="delete"),
    path(f"{_ENDPOINT}test/", views.test, name="test"),
    path(f"{_ENDPOINT}replay/", views.replay, name="replay"),
    path(f"{_ENDPOINT}posts/<int:hook_id>/", views.hook, name="hook"),
]
