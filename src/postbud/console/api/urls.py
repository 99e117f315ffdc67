"""Addresses of the console's API."""

from django.urls import path

from postbud.console.api import views

app_name = "api"
urlpatterns = [path("api/v1/messages/<str:message_id>", views.message, name="message")]
