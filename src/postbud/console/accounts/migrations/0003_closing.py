"""When an account was closed and erased; an account closed before this counts from now."""

from typing import Any

from django.db import migrations, models
from django.utils import timezone


def count_from_now(apps: Any, _schema_editor: Any) -> None:
    """Let the thirty days of accounts that are closed already begin now."""
    apps.get_model("accounts", "Account").objects.filter(status="closed", closed_at=None).update(closed_at=timezone.now())


class Migration(migrations.Migration):
    dependencies = (("accounts", "0002_identity"),)

    operations = (
        migrations.AddField(
            model_name="account",
            name="closed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="account",
            name="erased_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunPython(count_from_now, migrations.RunPython.noop),
    )
