"""What `bench.ingest` runs in processes of its own: make bodies of events, or fill the database that the environment names."""

import argparse
import gc
import sys
import time

import msgspec
from bench.events import Stream

from postbud.model.link import BATCH_EVENTS, EventBatch

_FILL_PACE = 20.0  # messages a second of the time that the filled events span: some days
_PACE = 4_000.0
_FILL_BATCH = 5_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=0, help="fill until the database has so many")
    parser.add_argument("--bodies", type=int, default=0, help="write so many bodies of a batch of events, one a line")
    parser.add_argument("--spool", type=int, default=1)
    given = parser.parse_args()
    if given.bodies:
        # spools live once: a run after a run has new numbers
        spool = (int(time.time()) * 16 + given.spool) & 0xFFFFFFFF
        batches = Stream(spool, spool, start=time.time(), messages_a_second=_PACE).batches(BATCH_EVENTS)
        for _ in range(given.bodies):
            sys.stdout.buffer.write(next(batches) + b"\n")
    else:
        fill(given.events)


def fill(events: int) -> None:
    """Bring the database to so many events."""
    import django  # noqa: PLC0415  # only this one needs the console

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415

    from postbud.console.mail.ingest import ingest  # noqa: PLC0415
    from postbud.console.mail.models import EventRow  # noqa: PLC0415

    gc.set_threshold(200_000, 50, 100)
    call_command("migrate", interactive=False, verbosity=0)
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous = OFF")
    there = EventRow.objects.count()
    missing = events - there
    if missing <= 0:
        return
    spool = int(time.time()) & 0xFFFFFFFF
    days_ago = time.time() - 25 * 86400 + there / 1.85 / _FILL_PACE
    batches = Stream(spool, spool, start=days_ago, messages_a_second=_FILL_PACE).batches(_FILL_BATCH)
    begun = time.monotonic()
    for number in range(0, missing, _FILL_BATCH):
        ingest(msgspec.json.decode(next(batches), type=EventBatch))
        if number % 500_000 == 0:
            print(f"{there + number:,} events, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if connection.vendor == "postgresql":
        connection.cursor().execute("VACUUM ANALYZE")


if __name__ == "__main__":
    main()
