"""`billing` as a Django application."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Label `billing`."""

    name = "postbud.console.billing"
    label = "billing"
    default_auto_field = "django.db.models.BigAutoField"
