"""`hooks` as a Django application."""

from django.apps import AppConfig


class HooksConfig(AppConfig):
    """Label `hooks`."""

    name = "postbud.console.hooks"
    label = "hooks"
    default_auto_field = "django.db.models.BigAutoField"
