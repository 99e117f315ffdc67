"""The page of statistics and its export. Every number of deliveries leads to the rows of the log behind it.

Reads only. Invariant: every query names the account of the address; times are the viewer's.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from postbud.console.accounts.permissions import Permission, route
from postbud.console.mail import statistics, weekly
from postbud.console.mail.export import harmless
from postbud.console.mail.forms import CLASSES
from postbud.console.mail.statistics import DIMENSIONS, Counts, Grain, Span
from postbud.console.servers.models import Credential, Server

_PERIODS: dict[str, tuple[str | Promise, timedelta, Grain]] = {
    "24h": (gettext_lazy("24 hours"), timedelta(hours=24), Grain.QUARTER),
    "7d": (gettext_lazy("7 days"), timedelta(days=7), Grain.HOUR),
    "30d": (gettext_lazy("30 days"), timedelta(days=30), Grain.DAY),
    "90d": (gettext_lazy("90 days"), timedelta(days=90), Grain.DAY),
    "12m": (gettext_lazy("12 months"), timedelta(days=365), Grain.MONTH),
}
_USUAL = "7d"
_BY = {
    "account": gettext_lazy("Account"),
    "server": gettext_lazy("Server"),
    "credential": gettext_lazy("Device or program"),
    "domain": gettext_lazy("From domain"),
    "site": gettext_lazy("Recipient's provider"),
    "source": gettext_lazy("Egress source"),
    "class": gettext_lazy("Class of failure"),
}
_LOG_NAMES = {"class": "classified"}  # what the log calls a dimension, where it is another name
# the figures that lead to the log: field, the log's state, title
_FIGURES = (
    ("accepted", "", gettext_lazy("Accepted")),
    ("delivered", "delivered", gettext_lazy("Delivered")),
    ("captured", "captured", gettext_lazy("Captured")),
    ("bounced", "bounced", gettext_lazy("Bounced")),
    ("expired", "expired", gettext_lazy("Expired")),
    ("cancelled", "cancelled", gettext_lazy("Cancelled")),
    ("suppressed", "suppressed", gettext_lazy("Suppressed")),
    ("waiting", "waiting", gettext_lazy("Still waiting")),
)
_DEFERRALS = gettext_lazy("Attempts refused for now")
_OF_FAILURES = ("bounced", "expired", "deferrals")  # what a class of failure counts
_ALWAYS = frozenset({"accepted", "delivered", "bounced", "waiting"})
_LONGEST = timedelta(days=400)


class AskedForm(forms.Form):
    """What the address bar asks for; what is no value is left out."""

    period = forms.ChoiceField(choices=[(name, name) for name in _PERIODS], required=False)
    start = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label=gettext_lazy("From"))
    end = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}), label=gettext_lazy("To"))
    by = forms.ChoiceField(choices=[(name, name) for name in _BY], required=False)
    dimension = forms.ChoiceField(choices=[(name, name) for name in _BY], required=False)
    key = forms.CharField(max_length=255, required=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page is about: a time, the dimension of its table, and the one value that it is narrowed to."""

    span: Span
    period: str
    by: str
    dimension: str
    key: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with where it leads, and how it compares."""

    name: str
    title: str | Promise
    count: int
    address: str = ""
    share: float | None = None
    change: float | None = None


@route(Permission.VIEW)
def statistics_page(request: HttpRequest, account_id: str) -> HttpResponse:
    """Show an account's figures over a time."""
    log = reverse("mail:messages", args=[account_id])
    context = figures_context(request, account_id, asked_of(request), _names(account_id), log)
    context["weekly"] = weekly.wants(account_id, str(request.user.pk))
    context["export"] = f"{reverse('mail:statistics_export', args=[account_id])}?{request.GET.urlencode()}"
    return render(request, "mail/statistics.html", context)


def figures_context(request: HttpRequest, account: str, asked: Asked, names: dict[str, str], log: str) -> dict[str, Any]:
    """Give what a page of figures shows; numbers lead to `log`, or nowhere when it is empty."""
    over, at = asked.span, (asked.dimension, asked.key)
    slots = statistics.course(account, over, *at)
    whole = statistics.add(slots)
    cells = _cells(whole, log, over, *at, earlier=statistics.total(account, *over.before, *at))
    shown = [cell for cell in cells if (cell.count or cell.name in _ALWAYS) and cell.name != "deferrals"]
    row_shown = _OF_FAILURES if asked.by == "class" else tuple(cell.name for cell in shown)
    rows = []
    if not asked.dimension:
        for key, counts in statistics.by_value(account, over.start, over.end, asked.by):
            address = f"?{_query(request, dimension=asked.by, key=key)}"
            name = _name(asked.by, key, names)
            rows.append({"key": key, "name": name, "address": address, "cells": _cells(counts, log, over, asked.by, key)})
    titles = [(name, title, f"?{_query(request, period=name, start='', end='')}") for name, (title, *_) in _PERIODS.items()]
    return {
        "asked": asked,
        "form": AskedForm(request.GET),
        "periods": titles,
        "bys": [(name, _BY[name], f"?{_query(request, by=name)}") for name in asked.dimensions],
        "by_title": _BY[asked.by],
        "narrowed_to": _name(asked.dimension, asked.key, names) if asked.dimension else "",
        "everything": f"?{_query(request, dimension='', key='')}",
        "figures": shown,
        "whole": whole,
        "latencies": statistics.latencies(account, over.start, over.end, *at),
        "rows": rows,
        "columns": [cell.title for cell in shown],
        "shown": {cell.name for cell in shown},
        "row_shown": row_shown,
        "row_columns": [title for name, _, title in (*_FIGURES, ("deferrals", "", _DEFERRALS)) if name in row_shown],
        "chart": _chart(over, slots),
        "slots": [
            {"at": edge, "cells": _cells(counts, log, _slot(over, place), *at)}
            for place, (edge, counts) in enumerate(zip(over.edges, slots, strict=True))
            if any(counts.values())
        ],
    }


@route(Permission.VIEW)
def export(request: HttpRequest, account_id: str) -> StreamingHttpResponse:
    """Give the course as CSV, times in UTC."""
    asked = asked_of(request)
    slots = statistics.course(account_id, asked.span, asked.dimension, asked.key)
    response = StreamingHttpResponse(_csv(asked.span, slots), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = (
        f'attachment; filename="statistics-{asked.span.start:%Y%m%d}-{asked.span.end:%Y%m%d}.csv"'
    )
    return response


def asked_of(request: HttpRequest, dimensions: tuple[str, ...] = DIMENSIONS, usual: str = "server") -> Asked:
    """Read what the address bar asks for; `usual` is the dimension of the table when it says none."""
    form = AskedForm(request.GET)
    form.is_valid()
    values = form.cleaned_data
    zone = timezone.get_current_timezone()
    now = timezone.now()
    period = values.get("period") or _USUAL
    start, end, grain = now - _PERIODS[period][1], now, _PERIODS[period][2]
    given = values.get("start"), values.get("end")
    if any(given):
        today = timezone.localdate()
        last = min(given[1] or today, today)
        first = min(max(given[0] or last, last - _LONGEST), last)
        following = last + timedelta(days=1)
        start = datetime(first.year, first.month, first.day, tzinfo=zone)
        end = datetime(following.year, following.month, following.day, tzinfo=zone)
        days = (end - start).days
        grain = Grain.QUARTER if days <= 2 else Grain.HOUR if days <= 14 else Grain.DAY
        period = ""
    elif grain in {Grain.DAY, Grain.MONTH}:
        local = timezone.localtime(start)
        start = datetime(local.year, local.month, 1 if grain is Grain.MONTH else local.day, tzinfo=zone)
    dimension, key = values.get("dimension") or "", values.get("key") or ""
    if not (dimension in dimensions and key):
        dimension = key = ""
    by = values.get("by") or usual
    return Asked(
        statistics.span(start, end, grain, zone), period, by if by in dimensions else usual, dimension, key, dimensions
    )


def _cells(counts: Counts, log: str, over: Span, dimension: str, key: str, earlier: Counts | None = None) -> list[Cell]:
    cells = []
    for name, state, title in _FIGURES:
        count = _count(counts, name)
        query = {"start": _local(over.start), "end": _local(over.end), "state": state}
        if dimension:
            query[_LOG_NAMES.get(dimension, dimension)] = key
        address = f"{log}?{urlencode({each: value for each, value in query.items() if value})}" if count and log else ""
        share = counts.share(count) if name != "accepted" else None
        before = _count(earlier, name) if earlier is not None else 0
        cells.append(Cell(name, title, count, address, share, (count - before) / before if before else None))
    return [*cells, Cell("deferrals", _DEFERRALS, counts.deferrals)]


def _count(counts: Counts, name: str) -> int:
    return int(getattr(counts, name))


def _slot(over: Span, place: int) -> Span:
    end = over.edges[place + 1] if place + 1 < len(over.edges) else over.end
    return Span(over.edges[place], end, over.grain, (over.edges[place],))


def _chart(over: Span, slots: list[Counts]) -> dict[str, object]:
    series = (
        (_("Delivered"), "ok", [one.delivered + one.captured for one in slots]),
        (_("Bounced"), "bad", [one.failed for one in slots]),
        (str(_DEFERRALS), "warn", [one.deferrals for one in slots]),
    )
    return {
        "times": [int(edge.timestamp()) for edge in over.edges],
        "series": [{"name": name, "colour": colour, "values": values} for name, colour, values in series],
    }


def _csv(over: Span, slots: list[Counts]) -> Iterator[str]:
    names = [*(name for name, *_ in _FIGURES), "deferrals", "holds", "returned", "messages", "octets"]
    yield _line(["start", *names])
    for edge, counts in zip(over.edges, slots, strict=True):
        yield _line([f"{edge:%Y-%m-%dT%H:%M:%SZ}", *(_count(counts, name) for name in names)])


def _line(values: list[str | int]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([harmless(value) for value in values])
    return line.getvalue()


def _local(at: datetime) -> str:
    return timezone.localtime(at).strftime("%Y-%m-%dT%H:%M")


def _query(request: HttpRequest, **changes: str) -> str:
    query = request.GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value:
            query[name] = value
    return query.urlencode()


def _name(dimension: str, key: str, names: dict[str, str]) -> str:
    if dimension == "class":
        return str(dict(CLASSES).get(key, key))
    return names.get(key, key) if dimension in {"account", "server", "credential"} else key


def _names(account_id: str) -> dict[str, str]:
    names = dict(Server.objects.filter(account_id=account_id).values_list("id", "name"))
    return names | dict(Credential.objects.filter(account_id=account_id).values_list("id", "name"))
