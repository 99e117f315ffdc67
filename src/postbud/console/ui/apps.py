"""Registers the app that holds layout, components and static files."""

from django.apps import AppConfig


class UiConfig(AppConfig):
    """The frame of the pages."""

    name = "postbud.console.ui"
    label = "ui"
