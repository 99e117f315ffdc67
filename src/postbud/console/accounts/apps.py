"""`accounts` as a Django application."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Label `accounts`."""

    name = "postbud.console.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"
