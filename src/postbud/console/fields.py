"""Columns of the big tables: public ids and instants, the same in both databases, small and quick to compare.

Owns how they are stored; knows nothing of the tables. Invariant: these columns sort by octet, so ids sort by time.
"""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

_Set_contra = TypeVar("_Set_contra", contravariant=True)
_Get_co = TypeVar("_Get_co", covariant=True)
if TYPE_CHECKING:
    _Text = models.CharField[str, str]

    class _Instant(models.Field[_Set_contra, _Get_co]):  # what Django's stubs read
        _pyi_private_set_type: datetime
        _pyi_private_get_type: datetime
        _pyi_lookup_exact_type: datetime

else:  # Django's classes take no parameters at run time
    _Text = models.CharField
    _Instant = defaultdict(lambda: models.Field)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Give an aware instant as microseconds since 1970."""
    return (at - EPOCH) // _MICRO


def from_micros(micros: int) -> datetime:
    """Give the instant of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


class IdField(_Text):
    """A public id, or another key of ASCII text: compared by octet, so that ids sort by time in PostgreSQL too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("max_length", 64)
        super().__init__(*args, **options)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Add the collation: SQLite compares by octet anyway."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters


class InstantField(_Instant[_Set_contra, _Get_co]):
    """An aware instant, stored as microseconds since 1970."""

    def get_internal_type(self) -> str:
        """Say which column it is."""
        return "BigIntegerField"

    def get_prep_value(self, value: Any) -> Any:
        """Take a datetime, or microseconds as raw statements use them."""
        return to_micros(value) if isinstance(value, datetime) else super().get_prep_value(value)

    def from_db_value(self, value: int | None, _expression: Any, _connection: BaseDatabaseWrapper) -> datetime | None:
        """Give what the column holds as a datetime."""
        return None if value is None else from_micros(value)

    def to_python(self, value: Any) -> Any:
        """Give a datetime, whatever came in."""
        if value is None or isinstance(value, datetime):
            return value
        return from_micros(int(value))
