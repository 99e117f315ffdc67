"""The DNS records of the keys that `acct_system` signs with, from the console's database. Loads Django."""

from postbud.app.config import Settings
from postbud.app.control_plane import start_django


def own_records(settings: Settings) -> list[tuple[str, str]]:
    """Give name and value of each record; nothing where there is no console."""
    if not settings.config.console.database and not (settings.data / "console.db").exists():
        return []
    start_django(settings)
    from django.db.utils import DatabaseError  # noqa: PLC0415 (after Django's setup)

    from postbud.console.domains.models import DkimKey, KeyStatus  # noqa: PLC0415 (as above)

    try:
        keys = list(DkimKey.objects.select_related("domain").filter(domain__account="acct_system", status=KeyStatus.ACTIVE))
    except DatabaseError:
        return []  # told by the look at the database
    return [(f"{key.selector}._domainkey.{key.domain.name}", key.public_record) for key in keys]
