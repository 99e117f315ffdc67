"""`operator` as a Django application."""

from django.apps import AppConfig


class OperatorConfig(AppConfig):
    """Label `operator`."""

    name = "postbud.console.operator"
    label = "operator"
    default_auto_field = "django.db.models.BigAutoField"
