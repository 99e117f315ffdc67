"""The link as a Django application."""

from django.apps import AppConfig


class LinkConfig(AppConfig):
    """Label `link`."""

    name = "postbud.console.link"
    label = "link"
    default_auto_field = "django.db.models.BigAutoField"
