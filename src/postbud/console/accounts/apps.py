"""`accounts` as a Django application."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Label `accounts`."""

    name = "postbud.console.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Begin to listen to sign-ins."""
        from postbud.console.accounts.trail import connect  # noqa: PLC0415 (models are there only now)

        connect()
