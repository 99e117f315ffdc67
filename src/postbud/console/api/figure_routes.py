"""Statistics, as the page of figures shows them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from django.http import HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from postbud.console.accounts.forms import time_zones
from postbud.console.accounts.permissions import Permission
from postbud.console.api.auth import Key, caller_of, now
from postbud.console.api.paging import NAYS
from postbud.console.api.problem import invalid
from postbud.console.api.schemas import CountsOut, StatisticsOut, ValuesOut
from postbud.console.mail import statistics
from postbud.console.mail.statistics import Counts, Grain

router = Router(tags=["statistics"])
READ = Key(Permission.VIEW)
_LONGEST = timedelta(days=400)
_MOST_SLOTS = 3000
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_USUAL = timedelta(days=7)
Dimension = Literal["server", "credential", "domain", "site", "source", "class"]


class Time(Schema):
    """A time, at most 400 days. Without `start`: seven days to `end`; without `end`: until now."""

    start: datetime | None = None
    end: datetime | None = None

    def between(self) -> tuple[datetime, datetime]:
        """Give its beginning and end."""
        end = _instant(self.end) if self.end is not None else now()
        start = _instant(self.start) if self.start is not None else end - _USUAL
        if not timedelta(0) < end - start <= _LONGEST:
            raise invalid("end", "comes after start, at most 400 days")
        return start, end


class AskedFigures(Time):
    """Which figures; `dimension` with `key` narrows them to one value."""

    grain: Literal["quarter", "hour", "day", "month"] = "day"
    time_zone: Annotated[str, Field(max_length=64)] = "UTC"
    dimension: Dimension | None = None
    key: Annotated[str, Field(max_length=255)] = ""


@router.get("/statistics", auth=READ, response={200: StatisticsOut, **NAYS}, summary="Figures over a time")
def read_statistics(request: HttpRequest, asked: Query[AskedFigures]) -> Any:
    """Give the figures of a time in slots that begin where a time zone's clock says so, and those of the time before."""
    start, end = asked.between()
    if asked.time_zone not in dict(time_zones()):
        raise invalid("time_zone", "is none that is known, such as Europe/Copenhagen")
    if asked.dimension is None and asked.key:
        raise invalid("key", "needs a dimension")
    if asked.grain == "quarter" and (end - start) / timedelta(minutes=15) > _MOST_SLOTS:
        raise invalid("grain", f"at most {_MOST_SLOTS} slots")
    if asked.grain == "hour" and (end - start) / timedelta(hours=1) > _MOST_SLOTS:
        raise invalid("grain", f"at most {_MOST_SLOTS} slots")
    account, at = caller_of(request).account.id, (asked.dimension or "", asked.key.replace("\x00", ""))
    over = statistics.span(start, end, Grain(asked.grain), ZoneInfo(asked.time_zone))
    slots = statistics.course(account, over, *at)
    latencies = statistics.latencies(account, over.start, over.end, *at)
    return {
        "start": over.start, "end": over.end, "total": _shown(statistics.add(slots)),
        "before": _shown(statistics.total(account, *over.before, *at)),
        "latency_ms": {"p50": latencies.p50, "p95": latencies.p95, "p99": latencies.p99},
        "slots": [_shown(one) | {"start": edge} for edge, one in zip(over.edges, slots, strict=True)],
    }  # fmt: skip


@router.get("/statistics/by/{dimension}", auth=READ, response={200: ValuesOut, **NAYS}, summary="Figures by a dimension")
def read_values(request: HttpRequest, dimension: Dimension, asked: Query[Time]) -> Any:
    """Give the figures of each value of a dimension."""
    start, end = asked.between()
    over = statistics.span(start, end, Grain.MONTH, UTC)
    rows = statistics.by_value(caller_of(request).account.id, over.start, over.end, dimension)
    return {"start": over.start, "end": over.end, "data": [_shown(counts) | {"key": key} for key, counts in rows]}


def _shown(counts: Counts) -> dict[str, Any]:
    return {name: getattr(counts, name) for name in CountsOut.model_fields}


def _instant(given: datetime) -> datetime:
    aware = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return min(max(aware, _EARLIEST), _LATEST)
