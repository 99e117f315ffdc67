"""Addresses of an account's message log."""

from django.urls import path

from postbud.console.mail import views

app_name = "mail"
urlpatterns = [
    path("a/<str:account_id>/messages/", views.messages, name="messages"),
    path("a/<str:account_id>/messages/newer/", views.newer, name="newer"),
    path("a/<str:account_id>/messages/<str:message_id>/", views.message, name="message"),
    path("a/<str:account_id>/messages/<str:message_id>/command/", views.act, name="act"),
]
