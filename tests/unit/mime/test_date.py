import email.utils
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbud.mime.date import format_date, parse_date

INSTANTS = st.datetimes(
    min_value=datetime(1950, 1, 2),
    max_value=datetime(2200, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))]),
)


@given(INSTANTS)
def test_a_date_is_written_as_the_standard_library_does_and_read_back(at: datetime) -> None:
    at = at.replace(microsecond=0)
    text = format_date(at)
    assert email.utils.parsedate_to_datetime(text) == at
    assert parse_date(text.encode()) == at


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (b"Tue, 24 Nov 2026 21:07:17 +0100", datetime(2026, 11, 24, 20, 7, 17, tzinfo=UTC)),
        (b"24 nov 26 21:07 -0130", datetime(2026, 11, 24, 22, 37, tzinfo=UTC)),
        (b"24 November 1999 21:07:00 EST", datetime(1999, 11, 25, 2, 7, tzinfo=UTC)),
        (b"24 Nov 99 21:07:00 GMT (Greenwich)", datetime(1999, 11, 24, 21, 7, tzinfo=UTC)),
        (b"24 Nov 2026 21:07:00 XYZ", datetime(2026, 11, 24, 21, 7, tzinfo=UTC)),
        (b"24 Nov 2026 21:07:00", datetime(2026, 11, 24, 21, 7, tzinfo=UTC)),
        (b"31 Dec 2016 23:59:60 +0000", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"31 Feb 2026 21:07:00 +0000", None),
        (b"1 Foo 2026 21:07:00 +0000", None),
        (b"1 Jan 2026 21:07:00 +9900", None),
        (b"1 Jan 0001 00:00:00 +0100", None),
        (b"2026-11-24T21:07:17Z", None),
        (b"", None),
        (b"Tue, " * 10_000, None),
    ],
)
def test_dates_of_all_ages_are_read_and_no_dates_are_none(value: bytes, at: datetime | None) -> None:
    assert parse_date(value) == at


@given(st.binary(max_size=50) | st.text("0123456789 :+-JanFebTue,()", max_size=50).map(str.encode))
def test_any_octets_are_a_date_or_none(value: bytes) -> None:
    found = parse_date(value)
    assert found is None or found.tzinfo is UTC
