"""The console's API as a Django application."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """Label `api`."""

    name = "postbud.console.api"
    label = "api"
