"""Pages of a list: a cursor is where the next one begins, sealed by nothing, so it is checked like any other value."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from django.db.models import Model, QuerySet
from ninja import Schema
from pydantic import Field

from postbud.console.api.problem import ApiProblem, invalid
from postbud.console.api.schemas import Problem

M = TypeVar("M", bound=Model)
T = TypeVar("T")
MOST = 200
NAYS: dict[int, Any] = dict.fromkeys((400, 401, 403, 404, 422), Problem)


class Asked(Schema):
    """Which page of a list is asked for."""

    cursor: Annotated[str, Field(max_length=100)] = ""
    limit: Annotated[int, Field(ge=1, le=MOST)] = 50


def page_by_id(rows: "QuerySet[M]", asked: Asked, show: Callable[[M], T]) -> dict[str, Any]:
    """Give a page of rows, newest first by their ids."""
    if asked.cursor:
        if not (asked.cursor.isascii() and asked.cursor.replace("_", "").isalnum()):
            raise bad_cursor()
        rows = rows.filter(id__lt=asked.cursor)
    found = list(rows.order_by("-id")[: asked.limit + 1])
    return page(
        [show(row) for row in found[: asked.limit]], str(found[asked.limit - 1].pk) if len(found) > asked.limit else None
    )


def page(data: Sequence[object], next_cursor: str | None) -> dict[str, Any]:
    """Give a page as it is answered."""
    return {"data": list(data), "next_cursor": next_cursor}


def bad_cursor() -> ApiProblem:
    """Say that a cursor is none that we gave."""
    return invalid("cursor", "none that was given")
