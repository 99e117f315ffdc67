"""What a command made, and why a relay did nothing."""

from django.db import migrations, models

import postbud.console.fields


class Migration(migrations.Migration):
    """Two columns of commands."""

    dependencies = (("link", "0001_initial"),)

    operations = (
        migrations.AddField(model_name="command", name="made", field=postbud.console.fields.IdField(default="", max_length=64)),
        migrations.AddField(model_name="command", name="said", field=models.CharField(default="", max_length=300)),
    )
