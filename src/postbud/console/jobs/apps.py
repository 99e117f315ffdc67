"""`jobs` as a Django application."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    """Label `jobs`."""

    name = "postbud.console.jobs"
    label = "jobs"
    default_auto_field = "django.db.models.BigAutoField"
