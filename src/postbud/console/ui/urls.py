"""Addresses of the frame itself: the choice of language."""

from django.urls import path

from postbud.console.ui import views

app_name = "ui"
urlpatterns = [path("language/", views.language, name="language")]
