"""`domains` as a Django application."""

from django.apps import AppConfig


class DomainsConfig(AppConfig):
    """Label `domains`."""

    name = "postbud.console.domains"
    label = "domains"
    default_auto_field = "django.db.models.BigAutoField"
