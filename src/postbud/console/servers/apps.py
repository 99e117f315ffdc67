"""`servers` as a Django application."""

from django.apps import AppConfig


class ServersConfig(AppConfig):
    """Label `servers`."""

    name = "postbud.console.servers"
    label = "servers"
    default_auto_field = "django.db.models.BigAutoField"
