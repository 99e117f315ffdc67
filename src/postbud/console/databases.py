"""Which database: Django's settings for SQLite in the data folder, or for what `postgresql://…` names."""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from postbud.console.configuration import ConsoleSettings


def database_settings(console: ConsoleSettings) -> dict[str, Any]:
    """Give the entry of `DATABASES` for the settings."""
    if not console.database:
        return {
            "ENGINE": "postbud.console.sqlite",
            "NAME": str(console.folder / "console.db"),
            "CONN_MAX_AGE": None,
        }
    parts = urlsplit(console.database)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    host = options.pop("host", "") or parts.hostname or ""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(host),
        "PORT": str(options.pop("port", "") or parts.port or ""),
        "OPTIONS": {"application_name": "postbud", **options},
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": True,  # a pooler may stand between
    }
