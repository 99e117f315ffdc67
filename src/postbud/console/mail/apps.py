"""The message log as a Django application."""

from django.apps import AppConfig


class MailConfig(AppConfig):
    """Label `mail`."""

    name = "postbud.console.mail"
    label = "mail"
    default_auto_field = "django.db.models.BigAutoField"
